"""JSON text that jsonb can hold: what is refused, how the message helps, and what is written."""

import datetime
import enum
import json
import time
import timeit

import pytest

from pgrecall.errors import FilterError, InvalidInput
from pgrecall.jsonable import MAX_DEPTH, dumps


def deep(levels):
    value = "x"
    for _ in range(levels):
        value = [value]
    return value


def circular():
    value = {"a": [1]}
    value["a"].append(value)
    return value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": float("nan")}, "metadata['a']: found the float nan, expected a finite number"),
        ({"a": [0, float("-inf")]}, "metadata['a'][1]: found the float -inf"),
        ({"a": {"b": "x\0"}}, "metadata['a']['b']: found a NUL character (U+0000) at index 1"),
        ({"a\0": 1}, "the key 'a\\x00': found a NUL character"),
        ({"a": "\ud83d"}, "metadata['a']: found a lone surrogate (U+D83D at index 0)"),
        ({"\udc00": 1}, "found a lone surrogate"),
        ({1: "x"}, "metadata: found the key 1 of type int, expected a string"),
        ({"a": [{None: 1}]}, "metadata['a'][0]: found the key None of type NoneType"),
        ({True: 1}, "found the key True of type bool"),
        ({"a": datetime.date(2020, 1, 1)}, "metadata['a']: found datetime.date, expected a JSON value"),
        ({"a": b"x"}, "found bytes"),
        ({"a": {1}}, "found set"),
        ({"a": iter([1])}, "found list_iterator"),
        ({"a": 10**5_000}, "metadata['a']: found an integer that is too large"),
        (deep(MAX_DEPTH + 1), f"nested deeper than {MAX_DEPTH} levels"),
        (deep(100_000), "nested deeper"),
        (circular(), "or contains itself"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_jsonb_cannot_hold_is_refused_by_the_path_to_it(value, message):
    """The error begins with what the value is, and is short however deep the culprit lies."""
    with pytest.raises(InvalidInput) as caught:
        dumps(value, "metadata")
    assert message in str(caught.value)
    assert str(caught.value).startswith("metadata")
    assert len(str(caught.value)) < 300


def test_the_caller_chooses_the_error():
    """A filter's bad value is a FilterError."""
    with pytest.raises(FilterError, match="filter on 'x'"):
        dumps(float("nan"), "filter on 'x'", error=FilterError)


class Color(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": [1, None, True, "é😀"]}, '{"a":[1,null,true,"é😀"]}'),
        ((1, (2,)), "[1,[2]]"),
        ({Color.RED: [Color.RED, Level.HIGH]}, '{"red":["red",3]}'),
        (1e23, "100000000000000000000000.0"),
        (-1.5e17, "-150000000000000000.0"),
        (1.2345678901234568e16, "12345678901234568.0"),
        ([1e16, "1e+23", '"1e+23'], r'[10000000000000000.0,"1e+23","\"1e+23"]'),
        (["\\", 1e22], r'["\\",10000000000000000000000.0]'),
        ({"1e+23": 1e-7}, '{"1e+23":1e-07}'),
        (-0.0, "-0.0"),
        (10**400, "1" + "0" * 400),
        ("\\u0000", r'"\\u0000"'),
        ("\\\\u0000", r'"\\\\u0000"'),
        ("\x01\x7f\u2028", '"\\u0001\x7f\u2028"'),
        ({}, "{}"),
        ("", '""'),
    ],
)  # fmt: skip
def test_the_text_is_plain_json(value, text):
    """Each value has one text: compact, unescaped beyond what JSON asks, large floats in full."""
    assert dumps(value, "value") == text


@pytest.mark.parametrize("value", [1e23, 1.7976931348623157e308, 5e-324, 1e16, -1e17, 123456789012345680.0])
def test_large_floats_are_the_same_float_in_full_digits(value):
    """Without an exponent, and with a point, it is read as the same float."""
    text = dumps(value, "value")
    assert "e+" not in text
    assert json.loads(text) == value
    assert type(json.loads(text)) is float


def test_nul_characters_are_stripped_from_keys_and_values_on_request():
    """At every depth, and in a copy."""
    value = {"a\0": ["\0x", {"b": "\\u0000"}], "n": 1e23}
    text = dumps(value, "value", on_nul="strip")
    assert json.loads(text) == {"a": ["x", {"b": "\\u0000"}], "n": 1e23}
    assert value["a\0"][0] == "\0x", "the input is not changed"


def test_stripping_never_merges_two_keys():
    """Where one of two values would be lost the value is refused."""
    with pytest.raises(InvalidInput, match="two keys are the same"):
        dumps({"x": {"a\0": 1, "a": 2}}, "metadata", on_nul="strip")


def test_stripping_nul_refuses_everything_else_as_before():
    """on_nul is about NUL alone."""
    with pytest.raises(InvalidInput, match="lone surrogate"):
        dumps({"a": "\0", "b": "\ud800"}, "metadata", on_nul="strip")


def test_an_ordinary_value_costs_little_more_than_its_encoding():
    """The checks and the encoding take less than three times the processor's time of the bare encoder."""
    value = {
        "lang": "de",
        "year": 2020,
        "source": "https://example.org/a",
        "page": 3,
        "score": 0.5,
        "title": "Ähre",
    }
    encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
    ours, bare = (
        min(timeit.repeat(lambda run=run: run(), timer=time.thread_time, number=2_000, repeat=7))
        for run in (lambda: dumps(value, "metadata"), lambda: encode(value))
    )
    assert ours < 3 * bare  # 1.3 when measured
