"""Serialises every value for a jsonb column, so that Postgres stores it and returns it unchanged.

`json.dumps` alone turns the key 1 into "1", writes NaN, and lets NUL characters and lone surrogates
through to a driver error that names no key; jsonb returns 1e23 as an integer. This is on the ingest path,
so an ordinary value costs one quick check of its types (about 3 µs).
"""

import re
import reprlib
from collections.abc import Mapping
from decimal import Decimal
from json.encoder import JSONEncoder

from pgrecall.arguments import OnNul, text_problem
from pgrecall.errors import InvalidInput

# Postgres parses JSON recursively and exceeds max_stack_depth at some thousand levels; real metadata is
# far from this.
MAX_DEPTH = 200

_encode = JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_SCALARS = frozenset({str, int, float, bool, type(None)})
# String literals are matched first, so that digits inside one are skipped.
_STRING_OR_LARGE_FLOAT = re.compile(r'"(?:[^"\\]|\\.)*"|-?[0-9.]+e\+[0-9]+')


def dumps(
    value: object,
    where: str,
    *,
    on_nul: OnNul = "error",
    error: type[InvalidInput] = InvalidInput,
) -> str:
    """Return `value` as JSON text that a jsonb column returns unchanged, types included.

    Accepts None, bool, int, float, str, list, and dict with string keys, nested up to `MAX_DEPTH` levels. A
    tuple is written as a list, and -0.0 is returned as 0.0. Postgres can't store the NUL character: by
    default it is an error; `on_nul="strip"` drops it from keys and values.

    Anything else (NaN, infinity, lone surrogates, other types or keys, circular references) raises
    `error`. Its message starts with `where` and the path to the invalid part.
    """
    try:
        if _is_plain(value, 0):
            text = _encode(value)
            text.encode()  # raises at a lone surrogate
            if "\\u0000" not in text:
                return text if "e+" not in text else _write_out_large_floats(text)
    except ValueError:
        pass  # the walk below finds the invalid part
    problem = _first_problem(value, where, 0, nul_is_one=on_nul == "error")
    if problem:
        raise error(problem)
    if on_nul == "strip":
        value = _without_nul(value, where, error)
    return _write_out_large_floats(_encode(value))


def _is_plain(value: object, depth: int) -> bool:
    """Whether the value consists of JSON's own types; False means that it needs a closer check."""
    kind = type(value)
    if kind in _SCALARS:
        return True
    if depth >= MAX_DEPTH:  # also stops at a circular reference
        return False
    if isinstance(value, dict) and kind is dict:
        for key, item in value.items():
            if type(key) is not str or (type(item) not in _SCALARS and not _is_plain(item, depth + 1)):
                return False
        return True
    if isinstance(value, list | tuple):
        # A plain loop: all() with a generator makes this twice as slow.
        for item in value:  # noqa: SIM110
            if type(item) not in _SCALARS and not _is_plain(item, depth + 1):
                return False
        return True
    return False


def _first_problem(value: object, where: str, depth: int, *, nul_is_one: bool) -> str | None:
    """What is wrong with the first part of `value` that can't be stored, and where it is; None if nothing is."""
    if value is None:
        return None
    if isinstance(value, int):
        try:
            int.__repr__(value)
        except ValueError as exc:  # more digits than Python converts, so it could not be read back
            return f"{where}: found an integer that is too large: {exc}"
        return None
    if isinstance(value, float):
        finite = float("-inf") < value < float("inf")
        return None if finite else f"{where}: found the float {value}, expected a finite number"
    if isinstance(value, str):
        return _text_problem(value, where, nul_is_one=nul_is_one)
    if not isinstance(value, dict | list | tuple):
        return (
            f"{where}: found {_type_name(value)}, expected a JSON value "
            "(None, bool, int, float, str, list, dict with string keys); convert it first"
        )
    if depth >= MAX_DEPTH:
        # `where` would be pages long here; its beginning identifies the value.
        return f"{where[:80]}…: nested deeper than {MAX_DEPTH} levels, or contains itself"
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        if isinstance(value, dict):
            if not isinstance(key, str):
                return f"{where}: found the key {reprlib.repr(key)} of type {_type_name(key)}, expected a string"
            problem = _text_problem(key, f"{where}: the key {key!r:.60}", nul_is_one=nul_is_one)
            if problem:
                return problem
        problem = _first_problem(item, f"{where}[{key!r:.60}]", depth + 1, nul_is_one=nul_is_one)
        if problem:
            return problem
    return None


def _text_problem(text: str, where: str, *, nul_is_one: bool) -> str | None:
    problem = text_problem(text, nul_is_one=nul_is_one)
    return f"{where}: found {problem}" if problem else None


def json_object(value: object, what: str, on_nul: OnNul = "error") -> str:
    """A mapping of string keys as JSON text. Raises InvalidInput."""
    if not isinstance(value, Mapping):
        raise InvalidInput(f"{what} is {type(value).__name__}; expected a mapping of string keys")
    return dumps(value if isinstance(value, dict) else dict(value), what, on_nul=on_nul)


def _without_nul(value: object, where: str, error: type[InvalidInput]) -> object:
    if isinstance(value, str):
        return value.replace("\0", "")
    if isinstance(value, Mapping):
        cleaned = {
            key.replace("\0", ""): _without_nul(item, f"{where}[{key!r:.60}]", error) for key, item in value.items()
        }
        if len(cleaned) < len(value):  # otherwise one of two values would be lost silently
            raise error(f"{where}: two keys are the same once NUL characters are dropped")
        return cleaned
    if isinstance(value, list | tuple):
        return [_without_nul(item, f"{where}[{at}]", error) for at, item in enumerate(value)]
    return value


def _write_out_large_floats(text: str) -> str:
    """Write 1e+23 as 100000000000000000000000.0.

    jsonb stores decimals, not floats: it returns 1e+23 without exponent or point, which is read as an
    integer that is not equal to the float. Negative exponents come back with a point by themselves.
    """
    return _STRING_OR_LARGE_FLOAT.sub(
        lambda match: match[0] if match[0].startswith('"') else f"{Decimal(match[0]):f}.0", text
    )


def _type_name(value: object) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
