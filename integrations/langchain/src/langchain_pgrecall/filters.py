"""The filter dialect of LangChain's Postgres stores, and structured queries, as the core's filters.

`{"year": {"$gte": 2020, "$lt": 2024}, "lang": "en"}`: fields and operators are AND-ed. A dot descends into an object,
`\\.` is a dot in a key. `pgrecall.Compare` documents the operators.
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
    """Translate a filter; a filter of the core is returned unchanged. Raises FilterError."""
    if given is None or isinstance(given, Filter):
        return given
    if not isinstance(given, Mapping):
        raise FilterError(
            f"filter is {type(given).__name__}; expected a dict such as {{'lang': 'en'}}, or a pgrecall filter"
        )
    return _all(given, 1)


def _all(given: Mapping[str, Any], depth: int) -> Filter:
    if (
        depth > MAX_DEPTH
    ):  # the core has the same limit, but checks it after this recursion, which Python would stop first
        raise FilterError(f"filter: nested deeper than {MAX_DEPTH} levels, the maximum; use fewer levels")
    parts = [_entry(key, value, depth) for key, value in given.items()]
    return parts[0] if len(parts) == 1 else And(*parts)


def _entry(key: object, value: Any, depth: int) -> Filter:
    if not isinstance(key, str):
        raise FilterError(f"filter: found the key {key!r:.60} of type {type(key).__name__}; expected a field name")
    if not key.startswith("$"):
        return _field(key, value)
    logic = key.lower()
    if logic not in _LOGIC:
        raise FilterError(f"filter: unknown operator {key!r:.60}; expected a field name or one of {', '.join(_LOGIC)}")
    if logic == "$not" and isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list | tuple) or not value:
        raise FilterError(f"filter on {key}: found {value!r:.60}; expected a list of at least one filter")
    parts = [_nested(key, part, depth) for part in value]
    if logic == "$not":  # of a list, as in the peers: none of its filters matches
        parts = [Not(part) for part in parts]
    return Or(*parts) if logic == "$or" else And(*parts)


def _nested(key: str, part: object, depth: int) -> Filter:
    if isinstance(part, Filter):
        return part
    if not isinstance(part, Mapping) or not part:
        raise FilterError(f"filter on {key}: found {part!r:.60}; expected a filter such as {{'lang': 'en'}}")
    return _all(part, depth + 1)


def _field(name: str, value: Any) -> Filter:
    path = tuple(key.replace("\\.", ".") for key in _DOT.split(name))
    if not isinstance(value, Mapping):
        return Compare(path, "eq", value)
    parts: list[Filter] = []
    for operator, operand in value.items():
        if operator not in _FIELD:
            raise FilterError(
                f"filter on {name!r:.60}: unknown operator {operator!r:.60}; expected one of {', '.join(_FIELD)}. "
                "Use {'$eq': {…}} to compare with a whole object"
            )
        op = _FIELD[operator]
        if op == "contains" and isinstance(operand, list | tuple):
            op = "all"
        parts.append(Compare(path, op, operand))  # type: ignore[arg-type]
    if not parts:
        raise FilterError(f"filter on {name!r:.60}: found an empty object; expected an operator such as $eq")
    return parts[0] if len(parts) == 1 else And(*parts)


class PGRecallTranslator(Visitor):
    """Translates structured queries, as a self-query retriever creates them, to the search's `filter`."""

    allowed_operators = tuple(Operator)
    allowed_comparators = tuple(Comparator)

    def visit_operation(self, operation: Operation) -> dict[str, Any]:
        """Translate an operation on filters."""
        self._validate_func(operation.operator)
        return {f"${operation.operator.value}": [argument.accept(self) for argument in operation.arguments]}

    def visit_comparison(self, comparison: Comparison) -> dict[str, Any]:
        """Translate a comparison of a field. Dates are compared as ISO 8601 strings."""
        self._validate_func(comparison.comparator)
        value = comparison.value
        if isinstance(value, Mapping) and value.get("type") in ("date", "datetime"):
            value = value[str(value["type"])]
        name = "contains" if comparison.comparator is Comparator.CONTAIN else comparison.comparator.value
        return {comparison.attribute: {f"${name}": value}}

    def visit_structured_query(self, structured_query: StructuredQuery) -> tuple[str, dict[str, Any]]:
        """Return a query's text and the keywords for the search."""
        keywords: dict[str, Any] = {}
        if structured_query.filter is not None:
            keywords["filter"] = structured_query.filter.accept(self)
        return structured_query.query, keywords
