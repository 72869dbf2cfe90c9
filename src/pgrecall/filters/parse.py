"""Reads filters written as JSON, from the command line and from files: ``{"lang": "de", "year": {"$gte": 2020}}``."""

from __future__ import annotations

from typing import Any

from pgrecall.errors import FilterError
from pgrecall.filters.tree import And, Compare, Filter, Not, Or


def parse(value: Any) -> Filter:
    """Make a filter of an object of fields, ``$and``, ``$or`` and ``$not``; operators begin with a $.

    Raises: FilterError.
    """
    if not isinstance(value, dict) or not value:
        raise FilterError(f'the filter has {value!r:.60}; expected an object such as {{"lang": "de"}}')
    parts: list[Filter] = []
    for key, wanted in value.items():
        if key in ("$and", "$or"):
            if not isinstance(wanted, list) or not wanted:
                raise FilterError(f"the filter's {key} has {wanted!r:.60}; expected a list of filters")
            parts.append((And if key == "$and" else Or)(*map(parse, wanted)))
        elif key == "$not":
            parts.append(Not(parse(wanted)))
        elif key.startswith("$"):
            raise FilterError(f"the filter has {key!r:.40}; expected $and, $or, $not or the name of a field")
        elif isinstance(wanted, dict) and any(name.startswith("$") for name in wanted):
            operators: dict[str, Any] = {name.removeprefix("$"): operand for name, operand in wanted.items()}
            parts += [Compare((key,), name, operand) for name, operand in operators.items()]  # type: ignore[arg-type]
        else:
            parts.append(Compare((key,), "eq", wanted))
    return parts[0] if len(parts) == 1 else And(*parts)
