"""Metadata filters: `F.lang == "de"`, a neutral tree of them, and one compiler to SQL.

An adapter translates its framework's dialect into the tree; nothing else knows that there are dialects.
"""

from pgrecall.filters.compile import bind_values, compile_filter, shape
from pgrecall.filters.tree import MAX_DEPTH, OPERATORS, And, Compare, F, Field, Filter, Not, Operator, Or

__all__ = [
    "MAX_DEPTH",
    "OPERATORS",
    "And",
    "Compare",
    "F",
    "Field",
    "Filter",
    "Not",
    "Operator",
    "Or",
    "bind_values",
    "compile_filter",
    "shape",
]
