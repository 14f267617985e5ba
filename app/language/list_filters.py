"""Filters on lists and maps."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import Undefined

from app.language.arguments import (
    Function,
    Missing,
    as_count,
    as_items,
    as_map,
    as_text,
    look_up,
    settled,
    strict,
)
from app.language.plain import (
    MAX_ITEMS,
    ValueRefused,
    check_items,
    check_plain,
    check_text,
    check_work,
    kind_of,
    text_of,
)
from app.language.predicates import TESTS
from app.language.text_filters import NUMBER_FILTERS, TEXT_FILTERS


def _length(value: Any) -> int:
    if isinstance(value, (str, list, tuple, Mapping)):
        return len(value)
    raise ValueRefused(f"needs text, a list or a map, not {kind_of(value)}")


def _first(value: Any) -> Any:
    return _end(value, 0, "first")


def _last(value: Any) -> Any:
    return _end(value, -1, "last")


def _end(value: Any, position: int, word: str) -> Any:
    source = value if isinstance(value, str) else as_items(value)
    return source[position] if source else Missing(hint=f"the {word} item of something empty")


def _append(value: Any, more: Any) -> Any:
    if isinstance(value, (list, tuple)):
        check_items(len(value) + 1)
        return [*value, more]
    tail = text_of(more)
    check_text(len(as_text(value)) + len(tail))
    return value + tail


def _prepend(value: Any, more: Any) -> Any:
    if isinstance(value, (list, tuple)):
        check_items(len(value) + 1)
        return [more, *value]
    head = text_of(more)
    check_text(len(as_text(value)) + len(head))
    return head + value


def _reverse(value: Any) -> Any:
    return value[::-1] if isinstance(value, str) else as_items(value)[::-1]


def _list(value: Any) -> list[Any]:
    if isinstance(value, (str, Mapping)):
        check_items(len(value))
        return list(value)
    return as_items(value)


def _pairs(value: Any) -> list[Any]:
    return [[key, item] for key, item in as_map(value).items()]


def _order(value: Any, attribute: Any, case_sensitive: Any) -> list[tuple[Any, int, Any]]:
    """(key, position, item) of each item, for stable sorting; keys of one kind only."""
    rows = [(settled(look_up(item, attribute)), place, item) for place, item in enumerate(as_items(value))]
    check_plain([key for key, _, _ in rows])
    if all(isinstance(key, str) for key, _, _ in rows):
        return rows if case_sensitive else [(key.lower(), place, item) for key, place, item in rows]
    if all(isinstance(key, (int, float)) for key, _, _ in rows):
        return rows
    raise ValueRefused("can order texts, or numbers, not a mixture or other kinds", "name an `attribute`")


def _sort(value: Any, reverse: Any = False, case_sensitive: Any = False, attribute: Any = None) -> list[Any]:
    rows = sorted(_order(value, attribute, case_sensitive), key=lambda row: row[0], reverse=bool(reverse))
    return [item for _, _, item in rows]


def _dictsort(value: Any, by: Any = "key", reverse: Any = False, case_sensitive: Any = False) -> list[Any]:
    if by not in ("key", "value"):
        raise ValueRefused("sorts by key or by value")
    return _sort(_pairs(value), reverse, case_sensitive, 0 if by == "key" else 1)


def _extreme(pick: Callable[..., Any], word: str) -> Function:
    def extreme(value: Any, attribute: Any = None, case_sensitive: Any = False) -> Any:
        rows = _order(value, attribute, case_sensitive)
        return pick(rows, key=lambda row: row[0])[2] if rows else Missing(hint=f"the {word} of an empty list")

    return extreme


def _unique(value: Any, attribute: Any = None) -> list[Any]:
    keys = [settled(look_up(item, attribute)) for item in as_items(value)]
    check_plain(keys)
    seen: dict[str, Any] = {}
    for key, item in zip(keys, value, strict=True):
        seen.setdefault(json.dumps(key, sort_keys=True, default=dict), item)
    return list(seen.values())


def _batch(value: Any, size: Any) -> list[list[Any]]:
    items, width = as_items(value), as_count(size, 1, MAX_ITEMS)
    check_items(len(items))
    return [items[place : place + width] for place in range(0, len(items), width)]


def _filter(value: Any, **wanted: Any) -> list[Any]:
    items = as_items(value)
    check_work(len(items), check_plain(list(wanted.values())))
    return [item for item in items if all(_same(item, key, want) for key, want in wanted.items())]


def _same(item: Any, key: str, want: Any) -> bool:
    return isinstance(item, Mapping) and key in item and bool(item[key] == want)


def _mapped(value: Any, name: Any = None, *, attribute: Any = None, default: Any = None) -> list[Any]:
    if (name is None) == (attribute is None):
        raise ValueRefused(
            "needs an attribute or the name of a filter", "`map(attribute='name')` or `map('upper')`"
        )
    if attribute is None:
        if name not in MAPPABLE:
            raise ValueRefused(f"cannot use {name!r}", f"one of {', '.join(sorted(MAPPABLE))}")
        check_plain(value)
        result = [MAPPABLE[name](item) for item in as_items(value)]
        check_plain(result)
        return result
    found = (look_up(item, attribute) for item in as_items(value))
    if default is None:
        return [settled(item) for item in found]
    return [default if isinstance(item, Undefined) else item for item in found]


def _chosen(keep: bool, by_attribute: bool) -> Function:
    def choose(value: Any, attribute: Any, test: Any, args: tuple[Any, ...]) -> list[Any]:
        items, check = as_items(value), _test_named(test)
        check_work(len(items), check_plain(list(args)))
        return [item for item in items if bool(check(look_up(item, attribute), *args)) is keep]

    def by_name(value: Any, attribute: Any, test: Any = None, *args: Any) -> list[Any]:
        return choose(value, attribute, test, args)

    def by_item(value: Any, test: Any = None, *args: Any) -> list[Any]:
        return choose(value, None, test, args)

    return by_name if by_attribute else by_item


def _test_named(name: Any) -> Function:
    if name is None:
        return lambda value: bool(settled(value))
    if not isinstance(name, str) or name not in TESTS:
        raise ValueRefused(f"there is no test {name!r}", f"one of {', '.join(sorted(TESTS))}")
    return TESTS[name]


MAPPABLE: dict[str, Function] = {
    name: strict(name, item)
    for name, item in {
        **TEXT_FILTERS,
        **NUMBER_FILTERS,
        "length": _length,
        "first": _first,
        "last": _last,
    }.items()
    if name not in ("replace", "sum")
}
"""What `map('name')` may call: filters that need no more than the value."""

LIST_FILTERS: dict[str, Function] = {
    "append": _append,
    "batch": _batch,
    "count": _length,
    "dictsort": _dictsort,
    "filter": _filter,
    "first": _first,
    "items": _pairs,
    "last": _last,
    "length": _length,
    "list": _list,
    "map": _mapped,
    "max": _extreme(max, "largest"),
    "min": _extreme(min, "smallest"),
    "prepend": _prepend,
    "reject": _chosen(keep=False, by_attribute=False),
    "rejectattr": _chosen(keep=False, by_attribute=True),
    "reverse": _reverse,
    "select": _chosen(keep=True, by_attribute=False),
    "selectattr": _chosen(keep=True, by_attribute=True),
    "sort": _sort,
    "unique": _unique,
}
