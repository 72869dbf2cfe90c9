"""A user's text taken apart: words, phrases, what is excluded; nothing that is typed is an error."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgrecall import InvalidInput
from pgrecall.statements.words import MOST_CHARACTERS, words


@pytest.mark.parametrize(
    ("text", "alone", "phrases", "without"),
    [
        ("wing body", "wing body", [], []),
        ('wing "boundary layer" flow', "wing flow", ["boundary layer"], []),
        ("wing -drag", "wing", [], ["drag"]),
        ('wing -"boundary layer" flow', "wing flow", [], ["boundary layer"]),
        ("wing-body a-", "wing-body a-", [], []),
        ('a-"b c"d', "a- d", ["b c"], []),
        ("“boundary layer” „Grenzschicht“", "", ["boundary layer", "Grenzschicht"], []),
        ('five" pipe', "five pipe", [], []),
        ('a "b c" "d', "a d", ["b c"], []),
        ("wing - body --help", "wing - body --help", [], []),
        ("wing or body and flow", "wing or body and flow", [], []),
        ('"" -"" "', "", [], []),
        ("a\0b \ud800c", "a b c", [], []),
        ("", "", [], []),
    ],
)
def test_words_phrases_and_exclusions_are_distinguished(text, alone, phrases, without):
    """Quotes make phrases, a minus before a word or phrase excludes it, and what is neither is a word."""
    assert words(text) == {"words": alone, "phrases": phrases, "without": without}


@settings(deadline=None)
@given(st.text(alphabet=st.one_of(st.sampled_from('"- aé\0\n“😀\\'), st.characters())))
def test_any_text_can_be_stored_apart(text):
    """Whatever is typed, no part has a quote, a NUL or a lone surrogate, and no phrase is empty."""
    parts = words(text)
    everything = [parts["words"], *parts["phrases"], *parts["without"]]
    assert not any(mark in part for part in everything for mark in ('"', "\0"))
    assert all(part.encode() is not None for part in everything) and all(everything[1:])


@pytest.mark.parametrize("text", ["word " * 20_000, '"' * 100_000, '-"' * 50_000, "x" * 100_000, "-a" * 50_000])
def test_a_huge_text_takes_no_time(text):
    """Of a long text the beginning counts, and taking it apart is linear."""
    started = time.process_time()
    parts = words(text)
    assert len(parts["words"]) + sum(map(len, parts["phrases"] + parts["without"])) <= MOST_CHARACTERS
    assert time.process_time() - started < 1


@pytest.mark.parametrize("text", [None, 3, b"bytes", ["a"]])
def test_a_text_is_a_string(text):
    """Anything else is refused by its type."""
    with pytest.raises(InvalidInput, match=type(text).__name__):
        words(text)
