"""What may come in about files. Lists of digests are read by hand: there may be a hundred thousand in one."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, ValidationError, fields, validate

from app.api.asked import PageQuery
from app.services.blobs import MOST_DIGESTS

_HEX = frozenset("0123456789abcdef")
_ULID = validate.Regexp(r"^([0-7][0-9A-HJKMNP-TV-Z]{25})?$(?!\n)", error="Give the id of an execution.")


class DigestField(fields.Field):
    """A sha256, with `sha256:` before it or without; "" for none where that is the default."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> str:
        return "" if value == "" == self.load_default else _digest(value)


class DigestsField(fields.Field):
    """A list of them."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> list[str]:
        if not isinstance(value, list) or len(value) > MOST_DIGESTS:
            raise ValidationError(f"Give a list of digests, {MOST_DIGESTS} at the most.")
        found = []
        for number, one in enumerate(value):
            try:
                found.append(_digest(one))
            except ValidationError as error:
                raise ValidationError({str(number): error.messages}) from None
        return found


def _digest(value: Any) -> str:
    digest = value.removeprefix("sha256:") if isinstance(value, str) else ""
    if len(digest) != 64 or not _HEX.issuperset(digest):
        raise ValidationError("Give a sha256: 64 hexadecimal digits in small letters.")
    return digest


class BlobPlaceSchema(Schema):
    """Where a person whose role is bounded has a blob from."""

    snapshot = DigestField(load_default="")
    execution = fields.String(load_default="", validate=_ULID)


class SnapshotQuery(Schema):
    execution = fields.String(load_default="", validate=_ULID)


class AskMissingSchema(Schema):
    digests = DigestsField(required=True)


class FetchBlobsSchema(BlobPlaceSchema):
    digests = DigestsField(required=True)


class StepsQuery(PageQuery):
    paths = fields.Boolean(
        load_default=False, metadata={"description": "With the paths of each step, 1,000 of each kind"}
    )


class ArtifactsQuery(PageQuery):
    path = fields.String(load_default=None, validate=validate.Length(max=1024))
    kind = fields.String(load_default=None, validate=validate.OneOf(("artifact", "kept")))
