"""The filter tree, and `F`, a short way to write one: `(F.lang == "de") & F.year.between(2020, 2024)`.

A node checks and copies its operands when it is made. So every filter that exists can be compiled, and it does not
change if the list that it was made of changes.
"""

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final, Literal, NoReturn, TypeAlias, cast, get_args

from pgrecall.errors import FilterError
from pgrecall.jsonable import dumps

Operator: TypeAlias = Literal[
    "eq", "ne", "gt", "gte", "lt", "lte", "between", "in", "nin", "contains", "any", "all",
    "has_any", "has_all", "text_match", "text_match_i", "part_of", "like", "ilike", "exists", "is_empty",
]  # fmt: skip
OPERATORS: Final[tuple[Operator, ...]] = get_args(Operator)

MAX_DEPTH = 32
MAX_NODES = 1_000
MAX_LIST = 10_000
MAX_ORDERED = 100
MAX_PATH = 32
MAX_KEY_BYTES = 1_000
MAX_VALUE_BYTES = 1_000_000


class _Node:
    """A node of the tree; nodes combine with `&`, `|` and `~`."""

    __slots__ = ()

    def __and__(self, other: "Filter") -> "And":
        return And(*_parts(self, And), *_parts(other, And)) if isinstance(other, _Node) else NotImplemented

    def __or__(self, other: "Filter") -> "Or":
        return Or(*_parts(self, Or), *_parts(other, Or)) if isinstance(other, _Node) else NotImplemented

    def __invert__(self) -> "Filter":
        return Not(cast("Filter", self))

    def __bool__(self) -> NoReturn:
        raise FilterError(
            "a filter is neither true nor false: combine filters with & | ~ instead of `and`, `or`, `not`, "
            "and write F.year.between(a, b) instead of the chain a <= F.year <= b"
        )


@dataclass(frozen=True, slots=True)
class Compare(_Node):
    """Compares one field with one value: `Compare(("lang",), "eq", "de")`. The result is true or false, never NULL.

    `path` holds the keys that lead to the field, each taken literally, dots included. The operators are:

    - eq: equal as JSON. 1 equals 1.0, a bool does not equal a number, null equals a null that is present, and lists
      and objects are compared as a whole. ne is the complement, so a missing key matches ne (and nin, and Not).
    - gt, gte, lt, lte, between (a pair, inclusive): compare numbers with numbers, and strings with strings by code
      point. A value of another type does not match. Numbers compare as the decimals that they print as.
      gt, gte, lt and lte also take a list of numbers and strings; arrays are then ordered by their first difference.
    - in: equals an element of the list; an empty list matches nothing. nin is the complement.
    - contains: an array that contains the scalar. any, all: an array that contains one, or all, of the scalars
      (`any []` matches no array, `all []` matches every array).
    - has_any, has_all: Python's `in` for one, or all, of the list: the elements of an array, substrings of a string,
      the keys of an object.
    - text_match: a string that contains the operand. text_match_i: the same, ignoring case; letters beyond
      ASCII follow the database's `lower()`. part_of: a string that the operand contains. like, ilike: SQL
      patterns (`%`, `_`, escape ``\\``).
    - exists: the key is present, even if it is null. is_empty: missing, null, "" or []. Both take True or False.

    Raises:
        FilterError: The operator is unknown, the value does not suit it or is not JSON, or a limit is exceeded: 32 keys
            in a path, 1,000 bytes in a key, 10,000 elements in a list (100 in an ordered comparison), 1,000,000 bytes
            of JSON in a value. The message names the key.
    """

    path: tuple[str, ...]
    op: Operator
    # Not part of == and hash, which take 1 and True as equal; the JSON text differs.
    value: object = field(compare=False)
    encoded: tuple[str, ...] = field(init=False, repr=False)  # JSON text: one, or one per list element

    depth: ClassVar[int] = 1
    nodes: ClassVar[int] = 1

    def __post_init__(self) -> None:
        _check_path(self.path)
        name = ", ".join(map(repr, self.path))
        if self.op not in OPERATORS:
            raise FilterError(f"filter on {name}: unknown operator {self.op!r}, expected one of {', '.join(OPERATORS)}")
        encoded = _encoded(self.op, self.value, f"filter on {name} ({self.op}), value")
        object.__setattr__(self, "encoded", encoded)
        object.__setattr__(self, "value", _frozen(self.value))


@dataclass(frozen=True, slots=True, init=False)
class _Branch(_Node):
    filters: tuple["Filter", ...]
    depth: int = field(compare=False, repr=False)
    nodes: int = field(compare=False, repr=False)

    def __init__(self, *filters: "Filter") -> None:
        _set_children(self, filters)


class And(_Branch):
    """True if all of the filters are; `And()` is always true. Raises FilterError above 32 levels or 1,000 nodes."""

    __slots__ = ()


class Or(_Branch):
    """True if at least one of the filters is; `Or()` is always false. The limits are those of And."""

    __slots__ = ()


class Not(_Branch):
    """True if the filter is false: matches exactly the rows that the filter does not. The limits are those of And."""

    __slots__ = ()

    def __init__(self, negated: "Filter") -> None:
        super().__init__(negated)


Filter: TypeAlias = Compare | And | Or | Not


def _parts(node: _Node, kind: type[And] | type[Or]) -> tuple[Filter, ...]:
    """Flatten a & b & c, so that a long chain of operators is one node and not a deep tree."""
    return node.filters if isinstance(node, kind) else (cast("Filter", node),)


def _set_children(node: _Branch, filters: tuple[Filter, ...]) -> None:
    """Fill a new node. Its size is the sum of its children's, so that no walk of the tree recurses too deep."""
    for child in filters:
        if not isinstance(child, _Node):
            raise FilterError(f"{type(node).__name__} takes filters as arguments, found {_describe(child)}")
    depth = 1 + max((child.depth for child in filters), default=0)
    nodes = 1 + sum(child.nodes for child in filters)
    _check_size("filter: levels of nesting", depth, MAX_DEPTH)
    _check_size("filter: nodes", nodes, MAX_NODES)
    for name, value in (("filters", filters), ("depth", depth), ("nodes", nodes)):
        object.__setattr__(node, name, value)


def _check_path(path: object) -> None:
    if not isinstance(path, tuple) or not path:
        raise FilterError(
            f"a filter's path: found {_describe(path)}, expected a tuple of at least one key, such as ('lang',)"
        )
    _check_size("filter: keys in a path", len(path), MAX_PATH)
    for key in path:
        if not isinstance(key, str):
            raise FilterError(f"filter on {reprlib.repr(key)}: found a key of type {type(key).__name__}, expected str")
        dumps(key, f"filter on {key!r:.80}, key", error=FilterError)
        _check_size(f"filter on {key!r:.80}: bytes in a key", len(key.encode()), MAX_KEY_BYTES)


def _encoded(op: Operator, value: object, where: str) -> tuple[str, ...]:
    """Check that the value suits the operator, and return it as JSON: one text, or one for each element."""
    match op:
        case "eq" | "ne":
            values: Sequence[object] = (value,)
        case "gt" | "gte" | "lt" | "lte" if isinstance(value, list | tuple):
            values = value
            _check_size(f"{where}: elements in a list", len(value), MAX_ORDERED)
            for element in value:
                _check_ordered((element,), where)
        case "gt" | "gte" | "lt" | "lte":
            values = (value,)
            _check_ordered(values, where)
        case "between":
            values = _list(value, where)
            if len(values) != 2:
                raise FilterError(f"{where}: found {len(values)} elements, expected the lowest and the highest")
            _check_ordered(values, where)
        case "in" | "nin" | "has_any":
            values = _list(value, where)
        case "contains":
            values = (value,)
            _check_scalars(values, where)
        case "any" | "all" | "has_all":
            values = _list(value, where)
            _check_scalars(values, where)
        case "text_match" | "text_match_i" | "part_of" | "like" | "ilike":
            values = (value,)
            if not isinstance(value, str):
                raise FilterError(f"{where}: found {_describe(value)}, expected a string")
            if op in ("like", "ilike") and (len(value) - len(value.rstrip("\\"))) % 2:
                raise FilterError(f"{where}: the pattern ends with a lone backslash, which escapes nothing: double it")
        case "exists" | "is_empty":
            values = (value,)
            if not isinstance(value, bool):
                raise FilterError(f"{where}: found {_describe(value)}, expected True or False")
    # Lists are encoded element by element, so that an error can name the element.
    spots = (f"{where}[{at}]" for at in range(len(values))) if values is value else (where,)
    encoded = tuple(dumps(item, spot, error=FilterError) for item, spot in zip(values, spots, strict=True))
    _check_size(f"{where}: bytes of JSON", sum(len(text.encode()) for text in encoded), MAX_VALUE_BYTES)
    return encoded


def _list(value: object, where: str) -> Sequence[object]:
    if not isinstance(value, list | tuple):
        raise FilterError(f"{where}: found {_describe(value)}, expected a list")
    _check_size(f"{where}: elements in a list", len(value), MAX_LIST)
    return value


def _check_ordered(values: Sequence[object], where: str) -> None:
    for value in values:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise FilterError(f"{where}: found {_describe(value)}, expected a number or a string")
    if len({isinstance(value, str) for value in values}) > 1:
        raise FilterError(f"{where}: found a number and a string, expected two of one type")


def _check_scalars(values: Sequence[object], where: str) -> None:
    for value in values:
        if isinstance(value, dict | list | tuple):
            raise FilterError(
                f"{where}: found {_describe(value)} as an element, expected None, bool, int, float or str"
            )


def _check_size(what: str, found: int, most: int) -> None:
    if found > most:
        raise FilterError(f"{what}: found {found:,}, at most {most:,} are allowed")


def _describe(value: object) -> str:
    return "None" if value is None else f"{type(value).__name__} {reprlib.repr(value)}"


def _frozen(value: object) -> object:
    """Copy a checked value, with tuples in place of lists."""
    if isinstance(value, list | tuple):
        return tuple(map(_frozen, value))
    return {key: _frozen(item) for key, item in value.items()} if isinstance(value, dict) else value


class Field:
    """A field of the metadata; a comparison with it makes a filter. `Compare` describes the operators."""

    __slots__ = ("path",)

    def __init__(self, *path: str) -> None:
        _check_path(path)
        self.path = path

    def __eq__(self, value: object) -> Compare:  # type: ignore[override]
        return Compare(self.path, "eq", value)

    def __ne__(self, value: object) -> Compare:  # type: ignore[override]
        return Compare(self.path, "ne", value)

    def __gt__(self, value: float | str) -> Compare:
        return Compare(self.path, "gt", value)

    def __ge__(self, value: float | str) -> Compare:
        return Compare(self.path, "gte", value)

    def __lt__(self, value: float | str) -> Compare:
        return Compare(self.path, "lt", value)

    def __le__(self, value: float | str) -> Compare:
        return Compare(self.path, "lte", value)

    def between(self, lowest: float | str, highest: float | str) -> Compare:
        """Match values from lowest to highest, both included."""
        return Compare(self.path, "between", (lowest, highest))

    def in_(self, values: Sequence[object]) -> Compare:
        """Match fields that equal one of the values."""
        return Compare(self.path, "in", values)

    def nin(self, values: Sequence[object]) -> Compare:
        """Match fields that equal none of the values, and rows without the key."""
        return Compare(self.path, "nin", values)

    def contains(self, value: float | str | None) -> Compare:
        """Match arrays that contain the value."""
        return Compare(self.path, "contains", value)

    def any(self, values: Sequence[float | str | None]) -> Compare:
        """Match arrays that contain at least one of the values."""
        return Compare(self.path, "any", values)

    def all(self, values: Sequence[float | str | None]) -> Compare:
        """Match arrays that contain all of the values."""
        return Compare(self.path, "all", values)

    def text_match(self, text: str) -> Compare:
        """Match strings that contain the text."""
        return Compare(self.path, "text_match", text)

    def text_match_i(self, text: str) -> Compare:
        """Match strings that contain the text, ignoring case."""
        return Compare(self.path, "text_match_i", text)

    def like(self, pattern: str) -> Compare:
        r"""Match strings by a SQL pattern: `%` any text, `_` any character, ``\`` escapes the next one."""
        return Compare(self.path, "like", pattern)

    def ilike(self, pattern: str) -> Compare:
        """Match strings by a SQL pattern, ignoring case."""
        return Compare(self.path, "ilike", pattern)

    def exists(self, wanted: bool = True) -> Compare:
        """Match rows that have the key, even if its value is null."""
        return Compare(self.path, "exists", wanted)

    def is_empty(self, wanted: bool = True) -> Compare:
        """Match rows in which the field is missing, null, "" or []."""
        return Compare(self.path, "is_empty", wanted)

    def _not_compared(self, *_: object) -> NoReturn:
        raise FilterError(
            f"the field {self.path!r} is not a filter: compare it, and put parentheses around each "
            'comparison, as in (F.lang == "de") & (F.year > 2020)'
        )

    # Python reads `F.a == 1 & F.b == 2` as `F.a == (1 & F.b) == 2`; the error says so.
    __and__ = __rand__ = __or__ = __ror__ = __invert__ = __bool__ = _not_compared

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f'a field has no attribute {name!r}; write F["a", "b"] for a nested key')


class Fields:
    """Makes fields: `F.lang`, `F["any key"]`, and `F["a", "b"]` for the key b in the object a."""

    __slots__ = ()

    def __getattr__(self, key: str) -> Field:
        if key.startswith("__"):  # Python and its tools look up such names; F["__key__"] is a field
            raise AttributeError(key)
        return Field(key)

    def __getitem__(self, keys: str | tuple[str, ...]) -> Field:
        return Field(*keys) if isinstance(keys, tuple) else Field(keys)


F: Final = Fields()
