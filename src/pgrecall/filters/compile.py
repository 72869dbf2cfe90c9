"""Filter tree to SQLAlchemy: a skeleton that depends on the tree's shape only, and the values to bind.

Compiling an expression costs about a millisecond, more than a small search. So the SQL is built from
`shape(tree)` and nothing else: callers cache its text by shape, and per call only collect `bind_values`.

Whatever is in a row, a leaf is true or false, never NULL (so that Not is an exact complement), and nothing
in it can fail, in whichever order Postgres evaluates it: there is no cast of a row's value.
"""

import operator
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any, TypeAlias

from sqlalchemy import (
    BindParameter,
    Boolean,
    ColumnElement,
    Text,
    and_,
    any_,
    bindparam,
    case,
    cast,
    collate,
    func,
    literal_column,
    not_,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.types import NullType

from pgrecall.filters.tree import And, Compare, Filter, Not, Or
from pgrecall.jsonable import dumps

Shape: TypeAlias = tuple["str | int | Shape", ...]
_Binds: TypeAlias = Iterator[BindParameter[Any]]

# `@> ANY` compares each element of the list with each row (3 elements 0.24 µs a row, 300: 16 µs); unnesting
# the row's array lets Postgres hash the list (1.2 µs with any length). They cross at some 20 elements.
# Neither can use a GIN index, and nor can `in`: only eq, contains and all do.
_HASHED_FROM = 20

_ORDER: dict[str, Callable[[Any, Any], ColumnElement[bool]]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}
# As text: a plain 0 would become a parameter that nobody binds, and true() and false() would make SQLAlchemy
# drop the conditions beside them, with their parameters.
_ZERO: ColumnElement[int] = literal_column("0")
_TRUE: ColumnElement[bool] = literal_column("true", Boolean())
_FALSE: ColumnElement[bool] = literal_column("false", Boolean())


def compile_filter(
    tree: Filter, column: ColumnElement[Any], prefix: str = "f"
) -> tuple[ColumnElement[bool], dict[str, object]]:
    """Return the filter as a condition on a jsonb column, and the parameters that it binds.

    They are called prefix + "0", "1", … in the order of `bind_values`, and are strings and lists of
    strings, which SQL casts: the compiled text can go to SQLAlchemy or straight to psycopg.
    """
    binds = (bindparam(f"{prefix}{number}", type_=NullType()) for number in count())
    return _condition(shape(tree), column, binds), bind_values(tree, prefix)


def shape(tree: Filter) -> Shape:
    """Return what the filter's SQL depends on: equal shapes compile to the same text for one column."""
    if isinstance(tree, Compare):
        return _leaf(tree)[0]
    return (type(tree).__name__, *map(shape, tree.filters))


def bind_values(tree: Filter, prefix: str = "f") -> dict[str, object]:
    """Return the parameters alone, for SQL text that was compiled from a filter of the same shape."""
    return {f"{prefix}{number}": value for number, value in enumerate(_values(tree))}


def _values(tree: Filter) -> Iterator[object]:
    if isinstance(tree, Compare):
        yield from _leaf(tree)[1]
    else:
        for child in tree.filters:
            yield from _values(child)


def _leaf(leaf: Compare) -> tuple[Shape, tuple[object, ...]]:
    """Return a leaf's shape, and its values in the order in which `_condition` takes them."""
    path, json, value, keys = leaf.path, leaf.encoded, leaf.value, len(leaf.path)
    form: Shape
    values: tuple[object, ...]
    match leaf.op:
        case "eq" | "ne" if not isinstance(value, tuple | dict):
            form, values = ("holds",), (_nested(path, json[0]),)
        case "eq" | "ne":
            form, values = ("equals", keys), (_nested(path, json[0]), *path, json[0])
        case "contains" | "all":
            form, values = ("holds",), (_nested(path, f"[{','.join(json)}]"),)
        case "any" if len(json) < _HASHED_FROM:
            form, values = ("any of few", keys), (*path, [f"[{text}]" for text in json])
        case "any":
            form, values = ("any of many", keys), (*path, list(json))
        case "in" | "nin":
            form, values = ("in", keys), (*path, list(json))
        case "exists" | "is_empty":
            form, values = (leaf.op, keys), path
        case "text_match" | "text_match_i" | "like" | "ilike":
            form, values = (leaf.op, keys), (*path, value)
        case "gt" | "gte" | "lt" | "lte" | "between":
            operands = value if isinstance(value, tuple) else (value,)
            text = isinstance(operands[0], str)
            form = (leaf.op, keys, "string" if text else "number")
            values = (*path, *(operands if text else json))
    if leaf.op in ("ne", "nin") or (value is False and leaf.op in ("exists", "is_empty")):
        form = (Not.__name__, form)
    return form, values


def _nested(path: tuple[str, ...], json: str) -> str:
    """Return the object that has the value at the path: what metadata must contain."""
    for key in reversed(path):
        json = f"{{{dumps(key, 'key')}:{json}}}"
    return json


def _condition(form: object, column: ColumnElement[Any], binds: _Binds) -> ColumnElement[bool]:
    match form:
        case (And.__name__, *parts):
            return and_(*[_condition(part, column, binds) for part in parts] or [_TRUE])
        case (Or.__name__, *parts):
            return or_(*[_condition(part, column, binds) for part in parts] or [_FALSE])
        case (Not.__name__, part):
            return not_(_condition(part, column, binds))
        case ("holds",):
            return _holds(column, binds)
        case ("equals", int(keys)):
            # Containment is implied by equality: it is there for the index.
            return and_(_holds(column, binds), _surely(_field(column, keys, binds) == _jsonb(binds)))
        case (str(name), int(keys), *kind):
            return _comparison(name, kind, _field(column, keys, binds), binds)
    raise AssertionError(form)


def _holds(column: ColumnElement[Any], binds: _Binds) -> ColumnElement[bool]:
    """Match what contains the bound object, which a GIN index of jsonb_path_ops can look up.

    For a scalar, or an array of scalars, at the end of a path of objects, containment is exactly what eq,
    contains and all mean: at each level the types must be the same, and scalars equal.
    """
    return and_(column.bool_op("@>")(_jsonb(binds)), column.is_not(None))


def _comparison(name: str, kind: Sequence[object], field: ColumnElement[Any], binds: _Binds) -> ColumnElement[bool]:
    type_is = func.jsonb_typeof(field).__eq__
    match name:
        case "exists":
            return field.is_not(None)
        case "is_empty":
            empty = literal_column("""ARRAY['null', '""', '[]']::jsonb[]""", ARRAY(JSONB))
            return func.coalesce(field, literal_column("'null'::jsonb", JSONB)) == any_(empty)
        case "in":
            return _surely(field == any_(_array(binds)))
        case "any of few":
            return _surely(field.bool_op("@>")(any_(_array(binds))))
        case "any of many":
            array = case((type_is(literal_column("'array'")), field), else_=literal_column("'[]'::jsonb"))
            element = func.jsonb_array_elements(array).column_valued("element")
            return select(literal_column("1")).where(element == any_(_array(binds))).exists()
        case _ if kind == ["number"]:
            # jsonb compares two numbers as numeric; comparing other types would follow jsonb's own order.
            return _surely(and_(type_is(literal_column("'number'")), _ordered(name, field, binds, _jsonb)))
    text = field.op("#>>", return_type=Text())(literal_column("'{}'::text[]", ARRAY(Text)))
    by_code_point = collate(text, "C")
    match name:
        case "text_match":
            test = func.strpos(by_code_point, _text(binds)) > _ZERO
        case "text_match_i":
            test = func.strpos(func.lower(text), func.lower(_text(binds))) > _ZERO
        case "like":
            test = by_code_point.like(_text(binds))
        case "ilike":
            test = text.ilike(_text(binds))
        case _:
            test = _ordered(name, by_code_point, binds, _text)
    return _surely(and_(type_is(literal_column("'string'")), test))


def _ordered(
    name: str,
    field: ColumnElement[Any],
    binds: _Binds,
    operand: Callable[[_Binds], ColumnElement[Any]],
) -> ColumnElement[bool]:
    if name == "between":
        return field.between(operand(binds), operand(binds))
    return _ORDER[name](field, operand(binds))


def _field(column: ColumnElement[Any], keys: int, binds: _Binds) -> ColumnElement[Any]:
    # Not #>, which would take the key "0" for an index into an array.
    for _ in range(keys):
        column = column.op("->", return_type=JSONB())(_text(binds))
    return column


def _surely(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    return func.coalesce(condition, _FALSE)


def _text(binds: _Binds) -> ColumnElement[Any]:
    return cast(next(binds), Text)


def _jsonb(binds: _Binds) -> ColumnElement[Any]:
    return cast(next(binds), JSONB)


def _array(binds: _Binds) -> ColumnElement[Any]:
    return cast(next(binds), ARRAY(JSONB))
