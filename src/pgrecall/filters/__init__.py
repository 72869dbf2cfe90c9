"""Metadata filters: `F.lang == "de"`, the tree that it makes, and the compiler to SQL.

Adapters translate their framework's filters into this tree.
"""

from pgrecall.filters.compile import bind_values, compile_filter, constant, shape
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
    "constant",
    "shape",
]
