"""Eval sets: what loaders read, refuse and count."""

from __future__ import annotations

import json

import pytest

from pgrecall import Chunk, InvalidInput
from pgrecall.evaluation import sets
from pgrecall.evaluation.sets import EvalQuery, EvalSet


@pytest.fixture
def folder(tmp_path):
    """A BEIR folder with two judged queries, one unjudged, and a judgement of nobody's."""
    lines = [{"_id": "q1", "text": "one?"}, {"_id": 2, "text": "two?"}, {"_id": "q3", "text": "three?"}]
    (tmp_path / "queries.jsonl").write_text("\n".join(map(json.dumps, lines)))
    documents = [{"_id": "d1", "title": "T", "text": "one"}, {"_id": 7, "title": "", "text": "seven"}]
    (tmp_path / "corpus.jsonl").write_text("\n".join(map(json.dumps, documents)))
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text(
        "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\n2\t7\t1\nq3\td1\t0\nq9\td1\t1\n"
    )
    return tmp_path


def test_a_beir_folder_gives_its_judged_queries_and_counts_the_rest(folder):
    """Numbers for ids are taken as text; what was left out is said."""
    made = sets.beir(folder, licence="CC0")
    assert [(q.id, q.text, dict(q.judged)) for q in made.queries] == [
        ("q1", "one?", {"d1": 2, "d2": 0}),
        ("2", "two?", {"7": 1}),
    ]
    assert made.left_out == {"queries without a judgement": 1, "judgements of unknown queries": 1}
    assert (made.licence, made.kind) == ("CC0", "judged")
    assert [(d.id, d.source) for d in sets.corpus(folder)] == [("d1", "T"), ("7", None)]


@pytest.mark.parametrize(
    "text", ["q1\td1\t1\n", "q1 0 d1 1\n", "query-id\tcorpus-id\tscore\nq1\td1\t1\n"], ids=["bare", "trec", "header"]
)
def test_judgements_come_with_or_without_header_in_three_or_four_columns(folder, text):
    """As they do in the wild."""
    (folder / "qrels" / "test.tsv").write_text(text)
    assert [dict(q.judged) for q in sets.beir(folder).queries] == [{"d1": 1}]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("queries.jsonl", '{"_id": "q1", "text": "x"}\n{oops', "queries.jsonl, line 2 is not JSON"),
        ("queries.jsonl", '{"_id": "q1"}', "line 1: 'text' is None"),
        ("queries.jsonl", "[1]", "line 1 is list; expected an object"),
        ("qrels/test.tsv", "q1\td1\n", "line 1 has 2 columns"),
        ("qrels/test.tsv", "q1\td1\t1\nq1\td2\tgood\n", "line 2: the grade is 'good'"),
    ],
)
def test_a_broken_file_is_refused_by_its_line(folder, file, text, message):
    """File, line, what was found and what was expected."""
    (folder / file).write_text(text)
    with pytest.raises(InvalidInput, match=message):
        sets.beir(folder)


def test_a_folder_without_judgements_is_refused(tmp_path):
    """The message names both places where they are looked for."""
    with pytest.raises(InvalidInput, match=r"qrels/dev\.tsv nor qrels\.tsv"):
        sets.beir(tmp_path, split="dev")


def test_json_lines_take_other_peoples_field_names(tmp_path):
    """One id, a list, or grades; a tenant and filters where there are."""
    path = tmp_path / "mine.jsonl"
    rows = [
        {"id": "a", "question": "?", "gold": "d1", "title": "acme", "filters": {"year": 2020}},
        {"id": "b", "question": "?", "gold": ["d1", 2]},
        {"id": 4, "question": "?", "gold": 17},
        {"id": "c", "question": "?", "gold": {"d1": 0.5, "d2": 0}},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    made = sets.json_lines(path, fields={"text": "question", "judged": "gold", "tenant": "title"})
    assert [dict(q.judged) for q in made.queries] == [{"d1": 1}, {"d1": 1, "2": 1}, {"17": 1}, {"d1": 0.5, "d2": 0}]
    assert (made.queries[0].tenant, made.queries[0].filters) == ("acme", {"year": 2020})
    with pytest.raises(InvalidInput, match="expected some of id, text"):
        sets.json_lines(path, fields={"texts": "question"})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": "a", "text": "?", "judged": []}, "line 1: query 'a' has no relevant id"),
        ({"id": "a", "text": "?", "judged": {"d": 0}}, "no relevant id"),
        ({"id": "a", "text": "?", "judged": {"d": "high"}}, "the grade of 'd' is 'high'"),
        ({"id": "a", "text": "?", "judged": {"d": float("nan")}}, "the grade of 'd' is nan"),
        ({"id": "a", "text": "?"}, "judged is None"),
        ({"id": "a", "text": " ", "judged": "d"}, "has no text"),
        ({"id": "", "text": "?", "judged": "d"}, "id is empty"),
        (
            {"id": "a", "text": "?", "judged": "d", "filters": {"k": {"$near": 1}}},
            "line 1: query 'a': .*operator 'near'",
        ),
    ],
)
def test_a_query_that_could_not_be_scored_is_refused(tmp_path, row, message):
    """By line and by what is missing."""
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps(row))
    with pytest.raises(InvalidInput, match=message):
        sets.json_lines(path)


def test_the_hash_depends_on_content_alone():
    """Not on the order of queries or judgements, nor on the name; on every part of a query."""
    first = EvalQuery("a", "?", {"x": 1, "y": 2})
    second = EvalQuery("b", "é?", {"z": 1})
    one = EvalSet("one", (first, second))
    two = EvalSet("two", (second, EvalQuery("a", "?", {"y": 2.0, "x": 1})))
    assert one.sha256 == two.sha256 and len(one.sha256) == 64
    for changed in (
        EvalQuery("a", "!", {"x": 1, "y": 2}),
        EvalQuery("a", "?", {"x": 1, "y": 1}),
        EvalQuery("a", "?", {"x": 1, "y": 2}, tenant="t"),
        EvalQuery("a", "?", {"x": 1, "y": 2}, filters={"k": 1}),
    ):
        assert EvalSet("one", (changed, second)).sha256 != one.sha256


def test_two_queries_of_one_id_are_refused():
    """Queries with one id could not be distinguished in a run."""
    query = EvalQuery("a", "?", {"x": 1})
    with pytest.raises(InvalidInput, match="2 queries with the id 'a'"):
        EvalSet("twice", (query, query))


def test_a_known_item_set_is_labelled_reproducible_and_finds_its_chunk():
    """The question is a sentence of the chunk that is not its beginning."""
    chunks = [Chunk(f"c{i}", f"Heading {i}. The long middle sentence number {i}. End.", doc_id="d") for i in range(20)]
    made = sets.known_items(chunks, 5, seed=3)
    assert made.kind == "known-item" and made == sets.known_items(reversed(chunks), 5, seed=3)
    for query in made.queries:
        assert query.text == f"The long middle sentence number {query.id[1:]}." and dict(query.judged) == {query.id: 1}
    assert {tuple(q.judged) for q in sets.known_items(chunks, 3, by_document=True).queries} == {("d",)}
    with pytest.raises(InvalidInput, match="no chunk has text"):
        sets.known_items([])
