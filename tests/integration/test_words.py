"""A user's words, as Postgres understands them: which texts they find, and that nothing makes them fail."""

from __future__ import annotations

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgrecall.statements.words import TSQUERY, words

TEXTS = {
    "wing": "The wing and the body of an aircraft",
    "layer": "A laminar boundary layer",
    "layers": "A layer at the boundary",
    "drag": "Drag of a wing in a boundary layer",
    "name": "O'Reilly wrote to foo@example.com about 3.14",
}
FOUND = """
SELECT coalesce(array_agg(id ORDER BY id), '{}') FROM unnest(%(ids)s::text[], %(texts)s::text[]) AS t (id, text)
WHERE to_tsvector(%(text_config)s::text::regconfig, text) @@ (""" + (TSQUERY + ")")


def found(connection: psycopg.Connection, text: str, config: str = "english") -> set[str]:
    rows = {"ids": list(TEXTS), "texts": list(TEXTS.values()), "text_config": config}
    return set(connection.execute(FOUND, rows | words(text), prepare=False).fetchone()[0])


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("wings unheard-of", {"wing", "drag"}),
        ("wing layer", {"wing", "layer", "layers", "drag"}),
        ('"boundary layer"', {"layer", "drag"}),
        ('aircraft "boundary layer"', {"wing", "layer", "drag"}),
        ("wing layer -drag", {"wing", "layer", "layers"}),
        ('layer -"boundary layer"', {"layers"}),
        ("layer -the", {"layer", "layers", "drag"}),
        ("boundary-layer", {"layer", "layers", "drag"}),
        ("O'Reilly", {"name"}),
        ("foo@example.com", {"name"}),
        ("3.14 | & ! <-> :* ( 'quoted' \\", {"name"}),
        ("WING or and", {"wing", "drag"}),
        ("the", set()),
        ("-drag", set()),
        ("the -drag", set()),
        ("😀 … !!", set()),
        ("", set()),
    ],
)
def test_what_words_find(admin_connection, text, ids):
    """Any word or phrase is enough, what is excluded never comes, and no words at all find nothing."""
    assert found(admin_connection, text) == ids


@pytest.mark.parametrize("config", ["english", "simple", "german"])
def test_no_text_is_an_error(admin_connection, config):
    """Arbitrary text, operators, quotes, escapes and tags among it, finds something or nothing."""

    @settings(max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.text(alphabet=st.one_of(st.sampled_from("\"'\\-&|!:*<>() a😀\0\n"), st.characters())))
    def ask(text):
        assert found(admin_connection, text, config) <= set(TEXTS)

    ask()
    for text in ("wing " * 20_000, "x" * 100_000, "'" * 100_000, "\\" * 99_999, "-" * 100_000, '<a href="x & y">'):
        assert found(admin_connection, text, config) <= set(TEXTS)
