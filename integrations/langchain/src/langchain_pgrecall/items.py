"""LangGraph's rules for namespaces, and its filter dialect as the core's filters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from langgraph.store.base import InvalidNamespaceError

from pgrecall import And, Compare, Filter, FilterError
from pgrecall.filters import MAX_DEPTH

_OPERATORS: Final = {"$eq": "eq", "$ne": "ne", "$gt": "gt", "$gte": "gte", "$lt": "lt", "$lte": "lte"}


def check_namespace(namespace: tuple[str, ...]) -> None:
    """Check a namespace by LangGraph's rules, which its own `batch` does not check. Raises InvalidNamespaceError."""
    if not isinstance(namespace, tuple | list) or not namespace:
        raise InvalidNamespaceError(f"the namespace is {namespace!r:.60}; expected a tuple of at least one label")
    for label in namespace:
        if not isinstance(label, str) or not label or "." in label:
            raise InvalidNamespaceError(
                f"the namespace {namespace!r:.80} has the label {label!r:.40}; expected non-empty text without dots"
            )
    if namespace[0] == "langgraph":
        raise InvalidNamespaceError(
            f"the namespace {namespace!r:.80} begins with 'langgraph', which LangGraph reserves"
        )


def to_filter(given: Mapping[str, Any] | None) -> Filter | None:
    """Translate `{"field": value}` and `{"field": {"$gte": 3}}`, which are AND-ed. A dot in a key is part of the key.

    An object without operators matches items whose field has at least these keys. Raises FilterError.
    """
    if not given:
        return None
    if not isinstance(given, Mapping):
        raise FilterError(f"filter is {type(given).__name__}; expected a dict such as {{'lang': 'en'}}")
    parts = [part for name, value in given.items() for part in _field((name,), value)]
    return parts[0] if len(parts) == 1 else And(*parts)


def _field(path: tuple[str, ...], value: Any) -> list[Filter]:
    if not isinstance(value, Mapping):
        return [Compare(path, "eq", value)]
    if not any(isinstance(name, str) and name.startswith("$") for name in value):
        if len(path) >= MAX_DEPTH:
            raise FilterError(
                f"filter on {path[0]!r:.60}: nested deeper than {MAX_DEPTH} levels, the maximum; use fewer levels"
            )
        return [part for name, inner in value.items() for part in _field((*path, name), inner)] or [
            Compare(path, "exists", True)
        ]
    for operator in value:
        if operator not in _OPERATORS:
            raise FilterError(
                f"filter on {path[-1]!r:.60}: unknown operator {operator!r:.60}; expected one of "
                f"{', '.join(_OPERATORS)}"
            )
    return [Compare(path, _OPERATORS[operator], operand) for operator, operand in value.items()]  # type: ignore[arg-type]
