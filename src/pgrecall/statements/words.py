"""A user's words as a full-text query: words and "quoted phrases" are OR-ed; -word and -"a phrase" exclude.

Any input is accepted. Everything else is punctuation, which the text search configuration ignores. Postgres' own
`websearch_to_tsquery` ANDs the words, so that one unknown word finds nothing.
"""

from __future__ import annotations

import re
from typing import Any, TypedDict

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from pgrecall.errors import InvalidInput
from pgrecall.statements.compose import compiled

#: Limits on a text's characters, and on its words and on its phrases, because a search's time grows with them.
MOST_CHARACTERS, MOST_WORDS = 4_000, 64

_TOKEN = re.compile(
    r"""(?P<minus>(?<!\S)-)?"(?P<phrase>[^"]*)"   # "a phrase", -"a phrase"
    |(?<!\S)-(?P<without>[^\s"-][^\s"]*)          # -word; a minus within a word, or before another, is punctuation
    |(?P<word>[^\s"]+)
    |"                                            # one that nothing closes""",
    re.VERBOSE,
)
_QUOTES = str.maketrans(dict.fromkeys("“”„‟″＂", '"'))


class Words(TypedDict):
    """The parameters of the statements, besides `text_config`."""

    words: str
    phrases: list[str]
    without: list[str]


def words(text: str) -> Words:
    """Parse a user's text, up to `MOST_CHARACTERS` and `MOST_WORDS`. Raises InvalidInput."""
    if not isinstance(text, str):
        raise InvalidInput(f"the text to search for is {type(text).__name__}; expected a string")
    # Postgres can't store NUL and lone surrogates, so no stored text has them.
    storable = text[:MOST_CHARACTERS].replace("\0", " ").encode(errors="ignore").decode()
    found = Words(words="", phrases=[], without=[])
    alone = []
    for token in _TOKEN.finditer(storable.translate(_QUOTES)):
        if token["phrase"]:
            found["without" if token["minus"] else "phrases"].append(token["phrase"])
        elif token["without"]:
            found["without"].append(token["without"])
        elif token["word"]:
            alone.append(token["word"])
    found["words"] = " ".join(alone)
    for some in (found["phrases"], found["without"]):
        del some[MOST_WORDS:]
    return found


_QUERY = sa.column("query", postgresql.TSQUERY())

#: The lexemes of the words, then the phrases.
_PARTS = sa.text(r"""
SELECT CAST(concat('''', replace(replace(lexeme, '\', '\\'), '''', ''''''), '''') AS tsquery) AS part
FROM (
  SELECT lexeme FROM unnest(to_tsvector(CAST(CAST(:text_config AS text) AS regconfig), CAST(:words AS text)))
  ORDER BY positions[1], lexeme LIMIT 64) AS alone
UNION ALL
SELECT part FROM unnest(CAST(:phrases AS text[])) AS typed (phrase)
CROSS JOIN LATERAL phraseto_tsquery(CAST(CAST(:text_config AS text) AS regconfig), phrase) AS part
WHERE numnode(part) > 0
""")

_WANTED = sa.text("SELECT CAST(string_agg(concat('(', part, ')'), ' | ') AS tsquery) AS query FROM parts")

_UNWANTED = sa.text("""
SELECT CAST(string_agg(concat('(', part, ')'), ' | ') AS tsquery) AS query
FROM unnest(CAST(:without AS text[])) AS typed (words)
CROSS JOIN LATERAL phraseto_tsquery(CAST(CAST(:text_config AS text) AS regconfig), words) AS part
WHERE numnode(part) > 0
""")


def alternatives() -> sa.CTE:
    """The alternatives, one query per row."""
    return _PARTS.columns(sa.column("part", postgresql.TSQUERY())).cte("parts").prefix_with("MATERIALIZED")


def wanted(parts: sa.CTE) -> sa.CTE:
    """Any of `parts`; evaluated once. NULL, which matches nothing, if there are only stop words."""
    return _WANTED.columns(_QUERY).add_cte(parts).cte("wanted").prefix_with("MATERIALIZED")


def unwanted() -> sa.CTE:
    """Any of the excluded words, or NULL; evaluated once."""
    return _UNWANTED.columns(_QUERY).cte("unwanted").prefix_with("MATERIALIZED")


def _whole() -> sa.Select[Any]:
    some, none = wanted(alternatives()), unwanted()
    both = sa.func.tsquery_and(some.c.query, sa.func.tsquery_not(none.c.query))
    query = sa.case((none.c.query.is_(None), some.c.query), else_=both)
    return sa.select(query.label("query")).join_from(some, none, sa.true())


def asked_words() -> sa.CTE:
    """The whole query as `c.query`: any of the alternatives, and none of the excluded words."""
    return _whole().cte("asked").prefix_with("MATERIALIZED")


#: The same as a subquery for statements in plain SQL: `text_search @@ (` + TSQUERY + `)`. Its parameters are those of
#: `words`, and `text_config`. In parentheses it is evaluated once instead of once per row, and an index can be used.
TSQUERY = compiled(_whole())
