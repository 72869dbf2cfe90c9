"""LlamaIndex's metadata filters as the core's, with the meaning of `build_metadata_filter_fn` in llama_index.core.

That function raises if a row's value can't be compared (`"abc" > 5`). Here such a row does not match, whatever else the
filter contains. Each part is therefore translated twice: into the rows that it matches, and the rows that it refuses.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from llama_index.core.vector_stores.types import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters

from pgrecall import And, Compare, Filter, FilterError, Not, Or
from pgrecall.filters import Operator

Parts = tuple[Filter, Filter]
Path = tuple[str]

_EVERY, _NONE = And(), Or()
_ORDER: dict[FilterOperator, Operator] = {
    FilterOperator.GT: "gt",
    FilterOperator.GTE: "gte",
    FilterOperator.LT: "lt",
    FilterOperator.LTE: "lte",
}
# Characters that no stored text has: NUL, which Postgres can't store, and lone surrogates, which are not Unicode.
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def to_filter(filters: MetadataFilters | None) -> Filter | None:
    """Translate filters; None if there are none. Raises FilterError."""
    if filters is None:
        return None
    if not isinstance(filters, MetadataFilters):
        raise FilterError(f"filters is {type(filters).__name__}; expected MetadataFilters(filters=[…])")
    if not filters.filters:
        return None
    return _translate(filters)[0]


def storable(text: str) -> bool:
    """Whether the database can hold a text. No stored value equals or contains one that it can't hold."""
    return _UNSTORABLE.search(text) is None


def _translate(node: MetadataFilter | MetadataFilters) -> Parts:
    if isinstance(node, MetadataFilter):
        return _leaf(node)
    if not node.filters:
        return _EVERY, _NONE
    parts = [_translate(child) for child in node.filters]
    matched = [part[0] for part in parts]
    refused = Or(*dict.fromkeys(part[1] for part in parts if part[1] != _NONE))
    if node.condition in (None, FilterCondition.AND):
        return And(*matched), refused  # no part matches what it refuses
    if node.condition not in (FilterCondition.OR, FilterCondition.NOT):
        raise FilterError(
            f"unknown filter condition {node.condition!r}; expected 'and', 'or', 'not', or None for 'and'"
        )
    any_of = Or(*matched)
    combined = any_of if node.condition == FilterCondition.OR else Not(any_of)
    return (And(combined, Not(refused)) if refused.filters else combined), refused


def _leaf(leaf: MetadataFilter) -> Parts:
    operator, value = leaf.operator, leaf.value
    translate = _LEAVES.get(operator)
    if translate is None:
        raise FilterError(
            f"filter on {leaf.key!r:.80}: unknown operator {operator!r}; expected a FilterOperator of llama-index-core"
        )
    if not storable(leaf.key):  # no row has the key
        missing = operator in (FilterOperator.NE, FilterOperator.NIN, FilterOperator.IS_EMPTY)
        return (_EVERY if missing else _NONE), _NONE
    return translate((leaf.key,), operator, value)


# --- what is at the key


def _is_none(path: Path) -> Filter:
    return Or(Compare(path, "exists", False), Compare(path, "eq", None))


def _is_number(path: Path) -> Filter:
    return Or(Compare(path, "lte", 0), Compare(path, "gt", 0))


def _is_bool(path: Path) -> Filter:
    return Compare(path, "in", [True, False])


def _is_string(path: Path) -> Filter:
    return Compare(path, "text_match", "")


def _is_array(path: Path) -> Filter:
    return Compare(path, "all", [])


def _neither_none_nor(path: Path, *kinds: Callable[[Path], Filter]) -> Filter:
    return Not(Or(*(kind(path) for kind in (_is_none, *kinds))))


def _holds_nothing(path: Path, *kinds: Callable[[Path], Filter]) -> Filter:
    """Values that Python's `in` can't search: numbers, bools, and the given kinds."""
    return Or(_is_number(path), _is_bool(path), *(kind(path) for kind in kinds))


def _can_equal(value: object) -> bool:
    """Whether a stored value can equal this one: numbers must be finite, text must be storable."""
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, list):
        return all(map(_can_equal, value))
    return not isinstance(value, float) or math.isfinite(value)


# --- operator by operator


def _equal(path: Path, operator: FilterOperator, value: Any) -> Parts:
    equals = Compare(path, "eq", value) if value is not None and _can_equal(value) else _NONE
    return (Not(equals) if operator == FilterOperator.NE else equals), _NONE


def _ordered(path: Path, operator: FilterOperator, value: Any) -> Parts:
    op = _ORDER[operator]
    if value is None:
        return _NONE, _neither_none_nor(path)
    if isinstance(value, str | list):
        bound, exact = _bound(value)
        if not exact:  # no stored value equals it
            op = "gte" if op in ("gt", "gte") else "lt"
        if isinstance(value, str):
            return Compare(path, op, bound), _neither_none_nor(path, _is_string)
        comparable = Or(Compare(path, "gt", bound), Compare(path, "lte", bound))
        return Compare(path, op, bound), Not(Or(_is_none(path), comparable))
    refused = _neither_none_nor(path, _is_number)
    if math.isfinite(value):
        return Compare(path, op, value), refused
    below = not math.isnan(value) and (value > 0) == (op in ("lt", "lte"))
    return (_is_number(path) if below else _NONE), refused


def _bound(value: str | list[Any]) -> tuple[Any, bool]:
    """Return the storable value that sorts stored values as `value` does, and whether it is `value` itself."""
    if isinstance(value, str):
        found = _UNSTORABLE.search(value)
        if found is None:
            return value, True
        # U+0001 follows NUL, and U+E000 the surrogates; no storable character is between them.
        return value[: found.start()] + ("\x01" if found[0] == "\0" else "\ue000"), False
    for at, item in enumerate(value):
        if isinstance(item, str) and not storable(item):
            return [*value[:at], _bound(item)[0]], False
    return value, True


def _one_of(path: Path, operator: FilterOperator, value: Any) -> Parts:
    negated = operator == FilterOperator.NIN
    if isinstance(value, list):
        within: Filter = Compare(path, "in", [item for item in value if _can_equal(item)])
        return (Not(within) if negated else within), _NONE
    if isinstance(value, str):  # in Python, `in` on a string looks for a substring
        within = Or(*(Compare(path, "part_of", piece) for piece in _UNSTORABLE.split(value)))
        refused = _neither_none_nor(path, _is_string)
        return (And(Not(within), Not(refused)) if negated else within), refused
    return (_is_none(path) if negated else _NONE), _neither_none_nor(path)


def _contains(path: Path, _operator: FilterOperator, value: Any) -> Parts:
    held = Compare(path, "has_any", [value]) if _can_equal(value) else _NONE
    if isinstance(value, list):  # it can't be a key of an object or part of a text
        return held, _neither_none_nor(path, _is_array)
    return held, _holds_nothing(path, *([] if isinstance(value, str) else [_is_string]))


def _contains_several(path: Path, operator: FilterOperator, value: Any) -> Parts:
    if not isinstance(value, list | str):
        return _NONE, _neither_none_nor(path)
    every = operator == FilterOperator.ALL
    wanted: Sequence[Any] = list(value)  # a string counts as its characters
    if not wanted:
        return (Not(_is_none(path)) if every else _NONE), _NONE
    refused = _holds_nothing(path, *([] if isinstance(wanted[0], str) else [_is_string]))
    possible = [item for item in wanted if _can_equal(item)]
    if every and len(possible) < len(wanted):
        return _NONE, refused
    return Compare(path, "has_all" if every else "has_any", possible), refused


def _text_match(path: Path, operator: FilterOperator, value: Any) -> Parts:
    if not isinstance(value, str):
        return _NONE, _neither_none_nor(path)
    op: Operator = "text_match" if operator == FilterOperator.TEXT_MATCH else "text_match_i"
    return (Compare(path, op, value) if storable(value) else _NONE), _neither_none_nor(path, _is_string)


def _is_empty(path: Path, _operator: FilterOperator, _value: Any) -> Parts:
    return Compare(path, "is_empty", True), _NONE


_LEAVES: dict[FilterOperator, Callable[[Path, FilterOperator, Any], Parts]] = {
    FilterOperator.EQ: _equal,
    FilterOperator.NE: _equal,
    **dict.fromkeys(_ORDER, _ordered),
    FilterOperator.IN: _one_of,
    FilterOperator.NIN: _one_of,
    FilterOperator.CONTAINS: _contains,
    FilterOperator.ANY: _contains_several,
    FilterOperator.ALL: _contains_several,
    FilterOperator.TEXT_MATCH: _text_match,
    FilterOperator.TEXT_MATCH_INSENSITIVE: _text_match,
    FilterOperator.IS_EMPTY: _is_empty,
}
