"""Declared metadata keys: which part of a filter their index can look up, and how it stores values.

The values of a declared key are stored as text in code point order. A lookup returns a superset of the matching
chunks; the filter itself is then tested on each. So a value may be truncated or rounded, as long as the order
is kept: a text is stored as its first `PREFIX` characters, a number as the bits of the nearest double.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, NamedTuple, TypeAlias

from pgrecall.filters.compile import Shape
from pgrecall.filters.tree import And, Compare, Filter, Or
from pgrecall.types import KeyType

#: Characters of a text that are stored; with the longest ids and names they still fit into an index entry.
PREFIX = 200
#: Larger numbers are stored as this one, and numbers closer to zero than its reciprocal as 0; doubles would overflow.
LARGEST = Decimal("1e300")
#: How many elements of an `all` are looked up; the others are tested on the rows that are found.
_MOST_OF_ALL = 4


@dataclass(frozen=True, slots=True)
class Key:
    """A declared key: its number within the collection, its path, and the type of its values."""

    number: int
    path: tuple[str, ...]
    type: KeyType


class Lookup(NamedTuple):
    """A lookup by declared keys: a form on which its SQL depends, the values, and the numbers of the keys.

    A form is ("key", *comparisons), ("every", *forms) or ("some", *forms). The values are in its order, with each
    key's number before its operands. `whole` is True if the lookup covers the whole filter.
    """

    form: Shape
    values: tuple[object, ...]
    numbers: frozenset[int]
    whole: bool


class _Leaf(NamedTuple):
    number: int
    comparisons: tuple[str, ...]
    operands: tuple[object, ...]
    scalar: bool
    whole: bool = True


class _BranchKeys(NamedTuple):
    name: Literal["every", "some"]
    parts: list[_Node]
    whole: bool


_Node: TypeAlias = "_Leaf | _BranchKeys"


def lookup(tree: Filter, keys: Iterable[Key]) -> Lookup | None:
    """The lookup for a filter by these keys, of a superset of its chunks; None if that would be all chunks."""
    node = _node(tree, {(key.path, key.type): key.number for key in keys})
    if node is None:
        return None
    values: list[object] = []
    numbers: set[int] = set()
    return Lookup(_form(node, values, numbers), tuple(values), frozenset(numbers), node.whole)


def _form(node: _Node, values: list[object], numbers: set[int]) -> Shape:
    if isinstance(node, _Leaf):
        numbers.add(node.number)
        values += (node.number, *node.operands)
        return ("key", *node.comparisons)
    return (node.name, *(_form(part, values, numbers) for part in node.parts))


def _node(tree: Filter, numbers: dict[tuple[tuple[str, ...], KeyType], int]) -> _Node | None:
    """One part of a conjunction is enough; of alternatives each is needed; a negation can't be looked up."""
    if isinstance(tree, Compare):
        return _compared(tree, numbers)
    parts = [_node(part, numbers) for part in tree.filters]
    known = [part for part in parts if part is not None]
    if isinstance(tree, And) and known:
        whole = len(known) == len(parts) and all(part.whole for part in known)
        merged = _merged(known)
        return merged[0]._replace(whole=whole) if len(merged) == 1 else _BranchKeys("every", merged, whole)
    if isinstance(tree, Or) and known and len(known) == len(parts):
        return _BranchKeys("some", known, all(part.whole for part in known))
    return None


def _merged(parts: list[_Node]) -> list[_Node]:
    """Merge the comparisons of one key into a range: its field is a scalar, so one entry must satisfy all of them."""
    merged: dict[int, _Leaf] = {}
    others: list[_Node] = []
    for part in parts:
        if not isinstance(part, _Leaf) or not part.scalar:
            others.append(part)
        elif (held := merged.get(part.number)) is None:
            merged[part.number] = part
        else:
            both = (held.comparisons + part.comparisons, held.operands + part.operands)
            merged[part.number] = _Leaf(part.number, *both, scalar=True)
    return [*merged.values(), *others]


def _compared(leaf: Compare, numbers: dict[tuple[tuple[str, ...], KeyType], int]) -> _Node | None:
    texts = leaf.encoded
    comparisons: tuple[str, ...]
    match leaf.op:
        case "eq" | "gt" | "gte" | "lt" | "lte" if isinstance(leaf.value, tuple | dict):
            return None  # arrays and objects as a whole
        case "eq":
            comparisons, scalar = ("=",), True
        case "contains":
            comparisons, scalar = ("=",), False
        case "in" | "any":
            comparisons, scalar = ("any",), leaf.op == "in"
        case "gt" | "gte":
            comparisons, scalar = (">=",), True
        case "lt" | "lte":
            comparisons, scalar = ("<=",), True
        case "between":
            comparisons, scalar = (">=", "<="), True
        case "all" if texts:
            elements = [_leaf(leaf.path, (text,), ("=",), numbers, scalar=False) for text in texts[:_MOST_OF_ALL]]
            known: list[_Node] = [element for element in elements if element is not None]
            whole = len(known) == len(texts)
            return None if not known else known[0] if len(known) == 1 else _BranchKeys("every", known, whole)
        case _:
            return None
    return _leaf(leaf.path, texts, comparisons, numbers, scalar=scalar)


def _leaf(
    path: tuple[str, ...],
    texts: Sequence[str],
    comparisons: tuple[str, ...],
    numbers: dict[tuple[tuple[str, ...], KeyType], int],
    *,
    scalar: bool,
) -> _Leaf | None:
    types = {_type(text) for text in texts}
    kind = types.pop() if len(types) == 1 else None
    if kind is None or (number := numbers.get((path, kind))) is None:
        return None
    operands = [entry(text) for text in texts]
    return _Leaf(number, comparisons, (operands,) if comparisons == ("any",) else tuple(operands), scalar)


def _type(text: str) -> KeyType | None:
    """The type of a JSON scalar; None for null, lists and objects, which are not indexed."""
    if text[0] == '"':
        return "text"
    if text in ("true", "false"):
        return "bool"
    return "number" if text[0] in "-0123456789" else None


def entry(text: str) -> str:
    """A JSON scalar as the index of a key stores it; `statements.keys.VALUES` does the same in SQL."""
    match _type(text):
        case "text":
            return str(json.loads(text))[:PREFIX]
        case "number":
            exact = Decimal(text)
            small = exact.copy_abs() < 1 / LARGEST
            near = 0.0 if small else float(max(-LARGEST, min(LARGEST, exact)))
            bits = struct.pack(">d", near)
            return "1" + bits.hex() if near >= 0 else "0" + bytes(255 - byte for byte in bits).hex()
        case _:
            return text
