"""What may come in about people, and about the audit trail."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from app.api.asked import LARGEST_NUMBER, PageQuery
from app.services.chain import MOST_VERIFIED
from app.services.people import LOGIN, LOGIN_RULE
from app.services.roles import MOST_GRANTS, ROLES

_HEAD = r"^([0-9]{1,15}):([0-9a-f]{64})$(?!\n)"


class GrantField(fields.Field):
    """A grant as an object; what is in it is looked at where its columns are made."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ValidationError("Give a grant as an object with a role.")
        return value


class GrantedSchema(Schema):
    role = fields.String(load_default=None, validate=validate.OneOf(ROLES))
    grants = fields.List(
        GrantField(),
        load_default=None,
        validate=validate.Length(min=1, max=MOST_GRANTS),
        metadata={"description": "Roles for some packs or nodes only: {role, packs, labels}"},
    )

    @validates_schema
    def _one_of_both(self, data: dict[str, Any], **_: Any) -> None:
        if data["role"] is not None and data["grants"] is not None:
            raise ValidationError("Give either role or grants.", "grants")


class UserSchema(GrantedSchema):
    login = fields.String(
        required=True, validate=validate.Regexp(rf"^{LOGIN.pattern}$(?!\n)", error=LOGIN_RULE)
    )

    @validates_schema
    def _one_at_least(self, data: dict[str, Any], **_: Any) -> None:
        if data["role"] is None and data["grants"] is None:
            raise ValidationError("Give a role, or grants.", "role")


class ChangeUserSchema(GrantedSchema):
    enabled = fields.Boolean(load_default=None, truthy={True}, falsy={False})

    @validates_schema
    def _something(self, data: dict[str, Any], **_: Any) -> None:
        if all(data[name] is None for name in ("role", "grants", "enabled")):
            raise ValidationError("Give role, grants or enabled.", "role")


class PlaceField(fields.Field):
    """`SEQ:HASH`, an entry of the audit trail and its hash."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> tuple[int, str]:
        text = validate.Regexp(_HEAD, error="Give SEQ:HASH.")(str(value))
        seq, _, found = text.partition(":")
        return int(seq), found


class VerifyQuery(Schema):
    limit = fields.Integer(
        load_default=MOST_VERIFIED,
        validate=validate.Range(min=1, max=MOST_VERIFIED),
        metadata={"description": "Entries that one answer is about"},
    )
    cursor = PlaceField(
        load_default=None, metadata={"description": "`next_cursor` of the answer before: SEQ:HASH"}
    )
    head = PlaceField(load_default=None, metadata={"description": "A head that was noted earlier: SEQ:HASH"})


class SealedQuery(PageQuery):
    after = fields.Integer(load_default=0, validate=validate.Range(min=0, max=LARGEST_NUMBER))
