"""Binary parameters are what Postgres' own binary format says: the driver reads them back as they were."""

from __future__ import annotations

import numpy as np
import pytest

try:
    from pgvector import HalfVector
except ImportError:  # before pgvector-python 0.4
    from pgvector.psycopg import HalfVector
from psycopg.adapt import Transformer
from psycopg.pq import Format

from pgrecall.postgres import wire

#: Of the array types in Postgres' catalog.
TEXTS, BYTEAS, JSONBS, INT4S, FLOAT4S = 1009, 1001, 3807, 1007, 1021
BYTEA_ELEMENT = (17).to_bytes(4, "big")
TEXT_VALUES = ["", "a", "é😀", "x" * 70_000, "'\"\\{},%:", "\n\t\x01"]


def read(array: bytes, oid: int) -> list[object]:
    return Transformer().get_loader(oid, Format.BINARY).load(array)


@pytest.mark.parametrize("values", [TEXT_VALUES, [*TEXT_VALUES, None], [None], ["one"], []])
def test_text_arrays(values):
    """text[] with and without NULLs, of empty, long and multi-byte texts."""
    assert read(wire.text_array(values), TEXTS) == values


@pytest.mark.parametrize("values", [[b"", b"\x00\xff", bytes(range(256))], []])
def test_bytea_arrays(values):
    """bytea[] of any bytes."""
    assert read(wire.bytea_array(values), BYTEAS) == values


@pytest.mark.parametrize("values", [[0, 1, -1, 2**31 - 1, -(2**31)], [None, 5], []])
def test_int4_arrays(values):
    """int4[] over the whole range, with NULLs."""
    assert read(wire.int4_array(values), INT4S) == values


def test_jsonb_arrays():
    """jsonb[]: None is NULL, and JSON's null is a value that has its version byte."""
    sent = wire.jsonb_array(['{"a":1}', None, "null", '"é"'])
    assert read(sent, JSONBS) == [{"a": 1}, None, None, "é"]
    assert sent.endswith(b"\xff\xff\xff\xff" + b"\0\0\0\5\1null" + b"\0\0\0\5\1" + '"é"'.encode())


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, ">f4"])
def test_float4_arrays(kind):
    """float4[] from an array of any float type and byte order."""
    assert read(wire.float4_array(np.array([0.5, -2, 65504], kind)), FLOAT4S) == [0.5, -2, 65504]


@pytest.mark.parametrize("dim", [1, 8, 16_000])
def test_half_vectors(dim):
    """halfvec, alone and in an array of the database's own type number, is pgvector's binary form."""
    values = np.random.default_rng(0).normal(size=(3, dim)).astype(np.float16)
    expected = [HalfVector(row.tolist()).to_binary() for row in values]
    assert [wire.halfvec(row) for row in values] == expected
    sent = wire.halfvec_array(values, oid=4711)
    assert read(sent[:8] + BYTEA_ELEMENT + sent[12:], BYTEAS) == expected
    assert int.from_bytes(sent[8:12], "big") == 4711
