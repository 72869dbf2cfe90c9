"""The filter dialect of LangChain's Postgres stores, and structured queries, to the core's tree.

`{"year": {"$gte": 2020, "$lt": 2024}, "lang": "en"}`: fields and operators side by side all must hold. A dot leads into
an object, `\\.` is a dot in a key. What the operators mean is said by `pgrecall.Compare`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from langchain_core.structured_query import Comparator, Comparison, Operation, Operator, StructuredQuery, Visitor

from pgrecall import And, Compare, Filter, FilterError, Not, Or
from pgrecall.filters import MAX_DEPTH

FilterLike: TypeAlias = Mapping[str, Any] | Filter | None

_FIELD: Final = {
    "$eq": "eq",
    "$ne": "ne",
    "$lt": "lt",
    "$lte": "lte",
    "$gt": "gt",
    "$gte": "gte",
    "$in": "in",
    "$nin": "nin",
    "$between": "between",
    "$exists": "exists",
    "$like": "like",
    "$ilike": "ilike",
    "$contains": "contains",
}
_LOGIC: Final = ("$and", "$or", "$not")
_DOT = re.compile(r"(?<!\\)\.")


def to_filter(given: FilterLike) -> Filter | None:
    """The tree of a filter in the dialect; a tree is taken as it is. Raises FilterError for what is not of it."""
    if given is None or isinstance(given, Filter):
        return given
    if not isinstance(given, Mapping):
        raise FilterError(
            f"filter is {type(given).__name__}; expected a dict such as {{'lang': 'en'}}, or a pgrecall filter"
        )
    return _all(given, 1)


def _all(given: Mapping[str, Any], depth: int) -> Filter:
    if depth > MAX_DEPTH:  # the tree has the same limit, but is made from the leaves: Python's recursion ends before
        raise FilterError(f"filter: levels of nesting: found more than {MAX_DEPTH}, the most that are allowed")
    parts = [_entry(key, value, depth) for key, value in given.items()]
    return parts[0] if len(parts) == 1 else And(*parts)


def _entry(key: object, value: Any, depth: int) -> Filter:
    if not isinstance(key, str):
        raise FilterError(f"filter: found the key {key!r:.60} of type {type(key).__name__}, expected a field's name")
    if not key.startswith("$"):
        return _field(key, value)
    logic = key.lower()
    if logic not in _LOGIC:
        raise FilterError(f"filter: unknown operator {key!r:.60} in place of a field; expected {', '.join(_LOGIC)}")
    if logic == "$not" and isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list | tuple) or not value:
        raise FilterError(f"filter on {key}: found {value!r:.60}, expected a list of at least one filter")
    parts = [_nested(key, part, depth) for part in value]
    if logic == "$not":  # a list, as in the peers: none of them holds
        parts = [Not(part) for part in parts]
    return Or(*parts) if logic == "$or" else And(*parts)


def _nested(key: str, part: object, depth: int) -> Filter:
    if isinstance(part, Filter):
        return part
    if not isinstance(part, Mapping) or not part:
        raise FilterError(f"filter on {key}: found {part!r:.60}, expected a filter such as {{'lang': 'en'}}")
    return _all(part, depth + 1)


def _field(name: str, value: Any) -> Filter:
    path = tuple(key.replace("\\.", ".") for key in _DOT.split(name))
    if not isinstance(value, Mapping):
        return Compare(path, "eq", value)
    parts: list[Filter] = []
    for operator, operand in value.items():
        if operator not in _FIELD:
            raise FilterError(
                f"filter on {name!r:.60}: unknown operator {operator!r:.60}, expected one of {', '.join(_FIELD)}; "
                "to compare with a whole object, {'$eq': {…}}"
            )
        op = _FIELD[operator]
        if op == "contains" and isinstance(operand, list | tuple):
            op = "all"
        parts.append(Compare(path, op, operand))  # type: ignore[arg-type]
    if not parts:
        raise FilterError(f"filter on {name!r:.60}: found an empty object, expected an operator such as $eq")
    return parts[0] if len(parts) == 1 else And(*parts)


class PGRecallTranslator(Visitor):
    """Translates structured queries, as a self-query retriever makes them, to the search's `filter`."""

    allowed_operators = tuple(Operator)
    allowed_comparators = tuple(Comparator)

    def visit_operation(self, operation: Operation) -> dict[str, Any]:
        """An operation on filters."""
        self._validate_func(operation.operator)
        return {f"${operation.operator.value}": [argument.accept(self) for argument in operation.arguments]}

    def visit_comparison(self, comparison: Comparison) -> dict[str, Any]:
        """A comparison of a field; a date compares by its ISO 8601 text."""
        self._validate_func(comparison.comparator)
        value = comparison.value
        if isinstance(value, Mapping) and value.get("type") in ("date", "datetime"):
            value = value[str(value["type"])]
        name = "contains" if comparison.comparator is Comparator.CONTAIN else comparison.comparator.value
        return {comparison.attribute: {f"${name}": value}}

    def visit_structured_query(self, structured_query: StructuredQuery) -> tuple[str, dict[str, Any]]:
        """A query's text, and the keywords for the search."""
        keywords: dict[str, Any] = {}
        if structured_query.filter is not None:
            keywords["filter"] = structured_query.filter.accept(self)
        return structured_query.query, keywords
