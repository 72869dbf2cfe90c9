"""What filters mean, said a second time in plain Python: the oracle for the SQL compiler."""

import re
from decimal import Decimal

from pgrecall.filters import And, Compare, Filter, Not, Or

_MISSING = object()
_ASCII_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}


def matches(tree: Filter, metadata: object) -> bool:
    """Tell whether a row with this metadata matches."""
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


def _leaf(leaf: Compare, found: object) -> bool:
    wanted = leaf.value
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
            kinds = {str: str, dict: str, list: object}
            if type(found) not in kinds:
                return False
            in_it = [
                isinstance(item, kinds[type(found)])
                and (_typed(item) in map(_typed, found) if isinstance(found, list) else item in found)
                for item in wanted
            ]
            return any(in_it) if leaf.op == "has_any" else all(in_it)
        case "exists":
            return (found is not _MISSING) == wanted
        case "is_empty":
            return (found is _MISSING or found is None or found in ("", [])) == wanted
    if not isinstance(found, str):
        return False
    if leaf.op in ("text_match_i", "ilike"):
        found, wanted = lower(found), lower(wanted)
    if leaf.op in ("text_match", "text_match_i"):
        return wanted in found
    if leaf.op == "part_of":
        return found in wanted
    return re.fullmatch(_like(wanted), found, re.DOTALL) is not None


def lower(text: str) -> str:
    """Fold ASCII only: beyond it Postgres follows the database's locale, so generated data avoids that."""
    return text.translate(_ASCII_LOWER)


def _typed(value: object) -> tuple[object, ...]:
    """Return a form that is equal where JSON is: no 1 == True, but 1 == 1.0."""
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


def _order(op: str, found: object, wanted: object) -> bool:
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
