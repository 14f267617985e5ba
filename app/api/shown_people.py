"""How people, what they may, and the chain of the audit trail go out."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, fields

from app.api.shown import Moment
from app.services import roles
from app.services.chain import Place, Verified


def _grants(row: Any) -> list[dict[str, Any]]:
    """All that counts: of somebody with just a role, the one grant that it is."""
    return [one.to_json() for one in roles.kept(row["role"], row["grants"])]


class GrantSchema(Schema):
    """Without `packs` for all packs, without `labels` on all nodes."""

    role = fields.String()
    packs = fields.List(fields.String())
    labels = fields.Dict(keys=fields.String(), values=fields.String())


class PersonSchema(Schema):
    """`role` is empty where `grants` say more than one role that holds everywhere."""

    login = fields.String()
    role = fields.String()
    grants = fields.Function(_grants, metadata={"type": "array"})
    enabled = fields.Boolean()
    created_at = Moment()


class PeopleSchema(Schema):
    items = fields.List(fields.Nested(PersonSchema))


class MeSchema(Schema):
    """`token` is the id of the token that asked."""

    login = fields.String()
    role = fields.String()
    grants = fields.Function(lambda me: [one.to_json() for one in me["grants"]], metadata={"type": "array"})
    token = fields.String()


class PlaceSchema(Schema):
    seq = fields.Integer()
    hash = fields.String()


class WrongSchema(Schema):
    seq = fields.Integer(allow_none=True)
    id = fields.Integer(allow_none=True)
    what = fields.String()


def _cursor(found: Verified) -> str | None:
    return None if found.next is None else as_text(found.next)


def as_text(place: Place) -> str:
    """`SEQ:HASH`, as `?cursor=` and `?head=` take it."""
    return f"{place.seq}:{place.hash}"


class VerifiedSchema(Schema):
    """`entries` were looked at here; `sealed` are in the chain, `unsealed` wait for the next tick. `first_wrong` is
    null where all is as it was sealed, `anchor` is what was pruned last."""

    ok = fields.Boolean()
    entries = fields.Integer()
    sealed = fields.Integer()
    unsealed = fields.Integer()
    first_wrong = fields.Nested(WrongSchema, allow_none=True)
    head = fields.Nested(PlaceSchema, attribute="chain.head")
    anchor = fields.Nested(PlaceSchema, attribute="chain.anchor")
    next_cursor = fields.Function(_cursor)
