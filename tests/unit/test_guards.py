"""What the guards store and what they refuse, for every kind of vector and in each distance."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest

from pgrecall import EmbedSpace, InvalidEmbedding
from pgrecall.guards import same_model, to_stored
from support.data import vectors

DISTANCES = ("cosine", "l2", "ip")
ONE = np.array([0.5, -0.25, 2, 8, 0.125, 1, -4, 16])  # exact in half precision


def stored(vector, distance="cosine", dim=8):
    return to_stored([vector], EmbedSpace("test", "m", dim, distance), ["chunk 'c'"])


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize(
    "given",
    [
        ONE.tolist(), tuple(ONE), ONE, ONE.astype(np.float32), ONE.astype(np.float16), ONE.astype(">f4"),
        ONE.astype(">f8"), ONE.astype(np.longdouble), np.repeat(ONE, 2)[::2], list(ONE.astype(np.float32)),
    ],
    ids=["list", "tuple", "f8", "f4", "f2", ">f4", ">f8", "long double", "strided", "list of f4"],
)  # fmt: skip
def test_every_form_of_the_same_numbers_is_stored_the_same(given, distance):
    """Lists, tuples and arrays of any float type, byte order and stride give one result."""
    result, plain = stored(given, distance), stored(ONE.tolist(), distance)
    assert result.vectors.dtype == np.float16
    assert result.vectors.tolist() == plain.vectors.tolist()
    assert result.norms.tolist() == [np.float32(np.linalg.norm(ONE))]


@pytest.mark.parametrize("given", [[1, 2, 3], [True, False, True], np.array([1, 2, 3], np.int8), [1, 2.0, True]])
def test_whole_numbers_and_bools_are_numbers(given):
    """They are stored as the numbers that they are."""
    assert stored(given, "l2", 3).vectors[0].tolist() == [float(x) for x in given]


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (ONE[:7], r"has 7 dimensions; the space test/m \(8 dims, .*\) has 8\. Embed with the space's model"),
        ([*ONE, 1.0], "has 9 dimensions"),
        ([], "has 0 dimensions"),
        ([*ONE[:7], float("nan")], "has NaN or infinite values; expected finite numbers"),
        ([*ONE[:7], float("inf")], "has NaN or infinite"),
        ([0.0] * 8, "is all zeros, which has no direction; embed a non-empty text"),
        ([-0.0] * 8, "is all zeros"),
        ([ONE], r"has shape \(1, 8\); expected \(8,\)"),
        (ONE.reshape(2, 4), r"has shape \(2, 4\)"),
        ([[1.0], [1.0, 2.0]], "is list .*; expected a flat list of numbers"),
        ([*ONE[:7], None], "expected a flat list of numbers"),
        (["1.5"] * 8, "expected a flat list of numbers"),
        ([*ONE[:7], "1.5"], "expected a flat list of numbers"),
        ("[1,2,3,4,5,6,7,8]", "is str '.*expected a flat list of numbers"),
        (b"12345678", "is bytes"),
        ({"a": 1}, "is dict"),
        (ONE + 1j, "expected a flat list of numbers"),
        ([Decimal(1)] * 8, "expected a flat list of numbers"),
        (np.zeros(8, "datetime64[s]"), "expected a flat list of numbers"),
        (1.5, "is float 1.5"),
        ([1e300] * 8, "length beyond single precision .*scale the model's output"),
        ([1e-200] * 8, "length beyond single precision"),
    ],
)  # fmt: skip
def test_a_wrong_vector_is_refused_in_every_distance(given, message, distance):
    """The error names the chunk, says what was found and what was expected."""
    with pytest.raises(InvalidEmbedding, match=message) as caught:
        stored(given, distance)
    assert str(caught.value).startswith("the embedding of chunk 'c' ")


@pytest.mark.parametrize("scale", [1e-30, 1e-9, 1, 1e6, 1e30])
def test_cosine_forgets_the_scale_but_keeps_the_norm(scale):
    """A unit vector is stored for every scale of the model, together with the given norm."""
    unit = stored(ONE).vectors[0].astype(float)
    scaled = stored(ONE * scale)
    assert scaled.vectors[0].astype(float) == pytest.approx(unit, rel=1e-3)
    assert np.linalg.norm(unit) == pytest.approx(1, abs=1e-3)
    assert scaled.norms[0] == pytest.approx(np.linalg.norm(ONE) * scale, rel=1e-6)


@pytest.mark.parametrize("distance", ["l2", "ip"])
def test_where_scale_matters_half_precision_is_the_limit(distance):
    """65,504 is stored, more is refused, and so is what would round to zero; both say what to do instead."""
    assert stored([65504.0] * 8, distance).vectors[0].tolist() == [65504.0] * 8
    assert stored([6e-8] * 8, distance).vectors.any()
    for value, found in (
        (65505.0, "a value above 65504"),
        (1e6, "a value above"),
        (1e-9, "rounds it to zero"),
    ):
        with pytest.raises(InvalidEmbedding, match=f"{found}.*scale the model's output, or use distance='cosine'"):
            stored([value] * 8, distance)


def test_what_came_out_goes_in_unchanged():
    """Stored cosine vectors, given again, are stored bit for bit: an export that is imported is the same."""
    space = EmbedSpace("test", "m", 384)
    first = to_stored(vectors(200, 384) * 7, space, ["x"] * 200).vectors
    assert to_stored(first.astype(np.float32), space, ["x"] * 200).vectors.tobytes() == first.tobytes()


@pytest.mark.parametrize("position", [0, 7, 19])
@pytest.mark.parametrize("bad", [[0.0] * 8, [1.0] * 7, [float("nan")] * 8, None, [["1"]] * 8])
def test_of_many_the_bad_one_is_named(position, bad):
    """The first wrong vector of a batch is named, wherever it stands and however the others come."""
    batch = [v if n % 2 else v.tolist() for n, v in enumerate(vectors(20))]
    batch[position] = bad
    with pytest.raises(InvalidEmbedding, match=f"the embedding of chunk {position} "):
        to_stored(batch, EmbedSpace("test", "m", 8), [f"chunk {n}" for n in range(20)])


@pytest.mark.parametrize("dim", [1, 2, 2_000, 4_096, 16_000])
def test_every_length_of_a_space_fits(dim):
    """From 1 to 16,000 dims a cosine vector keeps its direction in half precision."""
    [given] = vectors(1, dim)
    [kept] = stored(given, dim=dim).vectors.astype(float)
    assert given @ kept / np.linalg.norm(kept) == pytest.approx(1, abs=1e-3)


def test_the_same_model_is_recognized_by_its_direction():
    """Scale does not matter, another length or direction does, and nonsense is no match."""
    assert same_model(ONE, ONE * 3) == pytest.approx(1)
    assert same_model(ONE, -ONE) == pytest.approx(-1)
    assert same_model(ONE, ONE[:7]) == 0.0
