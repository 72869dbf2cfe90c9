"""Values: what they accept, how they compare, what they print."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from pgrecall import Chunk, DeleteReport, EmbedSpace, InvalidInput
from pgrecall.arguments import check_text
from pgrecall.types import StoredChunk


@pytest.mark.parametrize("value", ["a", "x" * 10, "é" * 5, "a\n'\"\\;%:{}", " ", "😀" * 2])
def test_text_within_its_cap_is_returned_as_it_is(value):
    """The cap counts UTF-8 bytes, and the last byte is allowed."""
    assert check_text(value, "id", 10) is value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("x" * 11, r"the id 'xxxxxxxxxxx'… has 11 bytes; expected at most 10\. Hash it or shorten it"),
        ("é" * 5 + "x", "has 11 bytes"),
        ("😀😀😀", "has 12 bytes"),
        ("x" * 5_000_000, r"'x{1,60}… has 5,000,000 bytes"),
        ("", "the id is empty; expected a non-empty string"),
        ("a\0b", r"the id 'a\\x00b' contains a NUL character.*; remove it"),
        ("\ud800", "not valid Unicode; remove it"),
        (None, "the id is NoneType None; expected a string"),
        (b"x", "the id is bytes b'x'; expected a string"),
        (7, "the id is int 7; expected a string"),
        (["x"] * 1000, r"the id is list \['x', .{1,60}; expected a string"),
    ],
)
def test_other_text_is_refused_by_what_was_found(value, message):
    """The error says what was found, what is expected, and stays short whatever was given."""
    with pytest.raises(InvalidInput, match=message) as caught:
        check_text(value, "the id", 10)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("", "m", 8), "provider is empty"),
        (("p", "m" * 201, 8), "model 'm+… has 201 bytes; expected at most 200"),
        (("p", "m", 0), "dim is 0; expected a whole number from 1 to 16,000"),
        (("p", "m", 16_001), "dim is 16001"),
        (("p", "m", True), "dim is True"),
        (("p", "m", 8.0), "dim is 8.0"),
        (("p", "m", "8"), "dim is '8'"),
        (("p", "m", 8, "euclid"), "distance is 'euclid'; expected 'cosine', 'l2' or 'ip'"),
    ],
)
def test_a_space_is_checked_when_it_is_made(arguments, message):
    """Wrong providers, models, dims and distances never reach the registry."""
    with pytest.raises(InvalidInput, match=message):
        EmbedSpace(*arguments)


def test_a_space_is_a_value():
    """Spaces compare and hash by what they say, and print as one line."""
    space = EmbedSpace("p", "m", 8)
    assert space == EmbedSpace("p", "m", 8, "cosine") != EmbedSpace("p", "m", 8, "l2")
    assert {space: 1}[EmbedSpace("p", "m", 8)] == 1
    assert str(space) == "p/m (8 dims, cosine)"


def test_chunks_compare_their_embeddings_by_value():
    """A list and an array of the same numbers are the same embedding; none is another one."""
    one = Chunk("1", "t", [1.0, 2.0])
    assert one == Chunk("1", "t", np.array([1.0, 2.0], dtype=np.float32))
    assert one != Chunk("1", "t", [1.0, 2.5])
    assert one != Chunk("1", "t")
    assert one != Chunk("1", "t", [1.0, 2.0], metadata={"a": 1})
    assert one != "1"
    assert len({one, Chunk("1", "t", np.array([1.0, 2.0]))}) == 1
    # What is stored has a norm too: another kind of value, from either side.
    assert one == StoredChunk("1", "t", [1.0, 2.0], norm=5.0) == one  # the same chunk, of which more is known


def test_values_are_frozen_and_travel_between_processes():
    """No field can be set, and a pickled value comes back equal."""
    values = {
        "text": Chunk("1", "t", [1.0]),
        "dim": EmbedSpace("p", "m", 8),
        "chunks": DeleteReport(1, 2, 3, 4),
    }
    for name, value in values.items():
        with pytest.raises(AttributeError):
            setattr(value, name, "2")
        assert pickle.loads(pickle.dumps(value)) == value


def test_a_delete_report_reads_as_a_mapping():
    """It prints as a dict, and an unknown table is a KeyError even where an attribute has that name."""
    report = DeleteReport(vectors=1, chunks=2)
    assert dict(report) == {"vectors": 1, "chunks": 2, "documents": 0, "collections": 0, "records": 0, "docstore": 0}
    assert len(report) == 6
    for name in ("tenants", "keys"):
        with pytest.raises(KeyError):
            report[name]
