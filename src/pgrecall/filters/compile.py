"""Compiles a filter tree to SQLAlchemy: SQL that depends only on the shape of the tree, and the values to bind.

Compiling an expression takes about a millisecond, more than a small search. So the SQL is built from
`shape(tree)` alone: callers cache its text by shape, and collect only `bind_values` in each call.

For every row, a leaf is true or false, never NULL, so that Not is an exact complement. No leaf can fail, in
whatever order Postgres evaluates it, because no value of a row is cast.
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
# Neither can use a GIN index, nor can `in`; only eq, contains and all can.
_HASHED_FROM = 20

_ORDER: dict[str, Callable[[Any, Any], ColumnElement[bool]]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}
# As text: a plain 0 would become a parameter that is never bound, and true() and false() would make SQLAlchemy
# drop the conditions next to them, with their parameters.
_ZERO: ColumnElement[int] = literal_column("0")
_TRUE: ColumnElement[bool] = literal_column("true", Boolean())
_FALSE: ColumnElement[bool] = literal_column("false", Boolean())


def compile_filter(
    tree: Filter, column: ColumnElement[Any], prefix: str = "f"
) -> tuple[ColumnElement[bool], dict[str, object]]:
    """Return the filter as a condition on a jsonb column, and the parameters that it binds.

    The parameters are named prefix + "0", "1", … in the order of `bind_values`. They are strings and lists of
    strings, which the SQL casts, so the compiled text works with SQLAlchemy and with psycopg.
    """
    binds = (bindparam(f"{prefix}{number}", type_=NullType()) for number in count())
    return _condition(shape(tree), column, binds), bind_values(tree, prefix)


def constant(tree: Filter) -> bool | None:
    """The filter's value if its form makes it the same for every row, as in `And()` and `Not(Or())`; else None."""
    if isinstance(tree, Compare):
        return {"in": False, "nin": True}.get(tree.op) if tree.value == () else None
    parts = [constant(part) for part in tree.filters]
    if isinstance(tree, Not):
        return None if parts[0] is None else not parts[0]
    decisive = isinstance(tree, Or)
    if decisive in parts:
        return decisive
    return None if None in parts else not decisive


def shape(tree: Filter) -> Shape:
    """Return what the filter's SQL depends on: filters of equal shape compile to the same text."""
    if isinstance(tree, Compare):
        return _leaf(tree)[0]
    return (type(tree).__name__, *map(shape, tree.filters))


def bind_values(tree: Filter, prefix: str = "f") -> dict[str, object]:
    """Return only the parameters, for SQL text that was compiled from a filter of the same shape."""
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
        case "has_any" | "has_all":
            texts = [item for item in _items(value) if isinstance(item, str)]
            # Strings and objects contain only texts, so none has all of a list with a number.
            held = leaf.op == "has_any" or len(texts) == len(json)
            form = (leaf.op, keys, "texts" if held else "others")
            values = (*path, list(json) if leaf.op == "has_any" else f"[{','.join(json)}]", *([texts] if held else ()))
        case "text_match" | "text_match_i" | "part_of" | "like" | "ilike":
            form, values = (leaf.op, keys), (*path, value)
        case "gt" | "gte" | "lt" | "lte" if isinstance(value, tuple):
            kinds = tuple("string" if isinstance(item, str) else "number" for item in value)
            form = (leaf.op, keys, "list", *kinds)
            values = path
            for item, encoded in zip(value, json, strict=True):  # one to compare by, one to order by
                values += (encoded, item if isinstance(item, str) else encoded)
        case "gt" | "gte" | "lt" | "lte" | "between":
            operands = value if isinstance(value, tuple) else (value,)
            text = isinstance(operands[0], str)
            form = (leaf.op, keys, "string" if text else "number")
            values = (*path, *(operands if text else json))
    if leaf.op in ("ne", "nin") or (value is False and leaf.op in ("exists", "is_empty")):
        form = (Not.__name__, form)
    return form, values


def _items(value: object) -> tuple[object, ...]:
    return value if isinstance(value, tuple) else ()


def _nested(path: tuple[str, ...], json: str) -> str:
    """Return the object that has the value at the path; matching metadata contains it."""
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
            # Equality implies containment, which is here for the index.
            return and_(_holds(column, binds), _surely(_field(column, keys, binds) == _jsonb(binds)))
        case (str(name), int(keys), *kind):
            return _comparison(name, kind, _field(column, keys, binds), binds)
    raise AssertionError(form)


def _holds(column: ColumnElement[Any], binds: _Binds) -> ColumnElement[bool]:
    """Match values that contain the bound object, which a GIN index of jsonb_path_ops can look up.

    For a scalar, or an array of scalars, at the end of a path of objects, containment is exactly what eq,
    contains and all mean: at each level the types must agree, and scalars must be equal.
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
            return _element_of(field, _array(binds))
        case "has_any" | "has_all":
            return _surely(_has(name, field, binds, texts=kind == ["texts"]))
        case _ if kind[:1] == ["list"]:
            array = type_is(literal_column("'array'"))
            return _surely(and_(array, _by_elements(name, field, 0, kind[1:], binds)))
        case _ if kind == ["number"]:
            return _typed(name, "number", field, binds)
    text, by_code_point = _as_text(field)
    match name:
        case "text_match":
            test = func.strpos(by_code_point, _text(binds)) > _ZERO
        case "text_match_i":
            test = func.strpos(func.lower(text), func.lower(_text(binds))) > _ZERO
        case "part_of":
            test = func.strpos(collate(_text(binds), "C"), text) > _ZERO
        case "like":
            test = by_code_point.like(_text(binds))
        case "ilike":
            test = text.ilike(_text(binds))
        case _:
            return _typed(name, "string", field, binds)
    return _surely(and_(type_is(literal_column("'string'")), test))


def _as_text(field: ColumnElement[Any]) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    """The text of a string, and the same with the collation by code point."""
    text = field.op("#>>", return_type=Text())(literal_column("'{}'::text[]", ARRAY(Text)))
    return text, collate(text, "C")


def _typed(name: str, kind: str, field: ColumnElement[Any], binds: _Binds) -> ColumnElement[bool]:
    """An ordered comparison within one type."""
    # jsonb compares two numbers as numeric; other types would follow jsonb's own order.
    test = (
        _ordered(name, field, binds, _jsonb) if kind == "number" else _ordered(name, _as_text(field)[1], binds, _text)
    )
    return _surely(and_(func.jsonb_typeof(field) == literal_column(f"'{kind}'"), test))


def _by_elements(
    name: str, field: ColumnElement[Any], at: int, kinds: Sequence[object], binds: _Binds
) -> ColumnElement[bool]:
    """Compares an array with a list, from element `at` on, by the first difference, else by length."""
    element = field.op("->", return_type=JSONB())(literal_column(str(at)))
    if not kinds:
        return {"gt": element.is_not(None), "gte": _TRUE, "lt": _FALSE, "lte": element.is_(None)}[name]
    same = _surely(element == _jsonb(binds))
    decided = or_(_typed(name, str(kinds[0]), element, binds), *([element.is_(None)] if name in ("lt", "lte") else []))
    rest = _by_elements(name, field, at + 1, kinds[1:], binds)
    return case((not_(same), decided), else_=rest)


def _has(name: str, field: ColumnElement[Any], binds: _Binds, *, texts: bool) -> ColumnElement[bool]:
    """Python's `in` for one, or all, of a list: in an array and, with `texts`, in a string and an object."""
    every = name == "has_all"
    kind = func.jsonb_typeof(field)
    in_array = field.bool_op("@>")(_jsonb(binds)) if every else _element_of(field, _array(binds))
    whens = [(kind == literal_column("'array'"), in_array)]
    if texts:
        sought = cast(next(binds), ARRAY(Text))
        at = func.strpos(_as_text(field)[1], func.unnest(sought).column_valued("sought"))
        in_string = select(literal_column("1")).where(at == _ZERO if every else at > _ZERO).exists()
        whens.append((kind == literal_column("'string'"), not_(in_string) if every else in_string))
        whens.append((kind == literal_column("'object'"), field.bool_op("?&" if every else "?|")(sought)))
    return case(*whens, else_=_FALSE)


def _element_of(field: ColumnElement[Any], values: ColumnElement[Any]) -> ColumnElement[bool]:
    """Match an array that has an element equal to one of the values."""
    array = case(
        (func.jsonb_typeof(field) == literal_column("'array'"), field),
        else_=literal_column("'[]'::jsonb"),
    )
    element = func.jsonb_array_elements(array).column_valued("element")
    return select(literal_column("1")).where(element == any_(values)).exists()


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
