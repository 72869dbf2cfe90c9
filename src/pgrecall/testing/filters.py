"""Filters evaluated in Python: for the in-memory stores, and as the reference of the SQL compiler."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from pgrecall.filters import And, Compare, Filter, Not, Or

_MISSING = object()
_ASCII_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}


def matches(tree: Filter, metadata: object) -> bool:
    """Whether a row with this metadata matches."""
    match tree:
        case And():
            return all(matches(child, metadata) for child in tree.filters)
        case Or():
            return any(matches(child, metadata) for child in tree.filters)
        case Not():
            return not matches(tree.filters[0], metadata)
    return _leaf(tree, _at(metadata, tree.path))


def _at(value: object, path: tuple[str, ...]) -> object:
    for key in path:
        if not isinstance(value, dict) or key not in value:
            return _MISSING
        value = value[key]
    return value


def _leaf(leaf: Compare, found: Any) -> bool:
    wanted: Any = leaf.value
    match leaf.op:
        case "eq":
            return _typed(found) == _typed(wanted)
        case "ne":
            return _typed(found) != _typed(wanted)
        case "in":
            return _typed(found) in map(_typed, wanted)
        case "nin":
            return _typed(found) not in map(_typed, wanted)
        case "gt" | "gte" | "lt" | "lte":
            return _order(leaf.op, found, wanted)
        case "between":
            return _order("gte", found, wanted[0]) and _order("lte", found, wanted[1])
        case "contains" | "any" | "all":
            if not isinstance(found, list):
                return False
            held = {_typed(item) for item in found}
            sought = {_typed(wanted)} if leaf.op == "contains" else {_typed(item) for item in wanted}
            return bool(held & sought) if leaf.op == "any" else held >= sought
        case "has_any" | "has_all":
            return _has(leaf.op, found, wanted)
        case "exists":
            return (found is not _MISSING) == bool(wanted)
        case "is_empty":
            return (found is _MISSING or found is None or found in ("", [])) == bool(wanted)
    if not isinstance(found, str):
        return False
    if leaf.op in ("text_match_i", "ilike"):
        found, wanted = lower(found), lower(wanted)
    if leaf.op in ("text_match", "text_match_i"):
        return wanted in found
    if leaf.op == "part_of":
        return found in wanted
    return re.fullmatch(_like(wanted), found, re.DOTALL) is not None


def _has(op: str, found: Any, wanted: Any) -> bool:
    kinds: dict[type, type] = {str: str, dict: str, list: object}
    if type(found) not in kinds:
        return False
    in_it = [
        isinstance(item, kinds[type(found)])
        and (_typed(item) in map(_typed, found) if isinstance(found, list) else item in found)
        for item in wanted
    ]
    return any(in_it) if op == "has_any" else all(in_it)


def lower(text: str) -> str:
    """The text with A–Z in lower case; beyond ASCII, Postgres follows the database's locale."""
    return text.translate(_ASCII_LOWER)


def _typed(value: object) -> tuple[Any, ...]:
    """A form that is equal if the JSON is equal: 1 and 1.0 are, 1 and True are not."""
    match value:
        case None:
            return ("null",)
        case bool() | str():
            return (type(value).__name__, value)
        case int() | float():
            return ("number", Decimal(repr(value)))
        case list() | tuple():
            return ("array", *map(_typed, value))
        case dict():
            return ("object", frozenset((key, _typed(item)) for key, item in value.items()))
    return ("missing",)


def _order(op: str, found: Any, wanted: Any) -> bool:
    if isinstance(wanted, tuple):
        if not isinstance(found, list):
            return False
        for ours, theirs in zip(found, wanted, strict=False):
            if _typed(ours) != _typed(theirs):
                return _order(op, ours, theirs)
        found, wanted = len(found), len(wanted)
    (kind, *left), (wanted_kind, *right) = _typed(found), _typed(wanted)
    if kind != wanted_kind:
        return False
    return {"gt": left > right, "gte": left >= right, "lt": left < right, "lte": left <= right}[op]


def _like(pattern: str) -> str:
    wildcards = {"%": ".*", "_": "."}
    tokens = re.findall(r"\\.|.", pattern, re.DOTALL)
    return "".join(wildcards.get(token) or re.escape(token[-1]) for token in tokens)
