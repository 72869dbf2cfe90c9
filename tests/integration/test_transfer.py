"""Export and import: what comes back is what was there, bit for bit, or nothing at all."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import psycopg
import pytest

from pgrecall import (
    Chunk,
    Database,
    Document,
    EmbedSpace,
    EmbedSpaceMismatch,
    FingerprintMismatch,
    InvalidInput,
    NotFound,
    PostgresVectorStore,
)
from pgrecall.operations.chunks import reads as chunk_ops
from pgrecall.statements import reads
from pgrecall.statements.reads import Where
from pgrecall.transfer import export_lines, import_lines
from support.data import chunks, vectors

DOCUMENTS = [
    Document("c-doc-0", "wiki", "https://example.org/ü?a=1", "sha256:abc", {"pages": [1, 2.5, None]}),
    Document("alone", metadata={"no": "chunks"}),
]


def awkward_chunks() -> list[Chunk]:
    """Chunks with all that JSON, half precision or a line of text could spoil."""
    lengths = np.random.default_rng(7).uniform(0.01, 50, size=30)
    made = [
        Chunk(c.id, c.text, c.embedding * length, c.doc_id, c.index, c.metadata)
        for c, length in zip(chunks(30), lengths, strict=True)
    ]
    deep = {"a": {"b": [1, -0.5, 1e23, True, None, "ü"]}, 'quo"te': "line\nbreak\u2028and more"}
    made[3] = Chunk("ünï\ncode", "text\r\n\u2028 \x85 ☃", made[3].embedding, metadata=deep, payload={"node": {"x": []}})
    return made


def stored(connection: psycopg.Connection, tenant: str, collection: str = "handbook") -> list[tuple[object, ...]]:
    """Every vector with its norm, as the bytes of the table."""
    return connection.execute(
        "SELECT chunk_id, encode(halfvec_send(embedding), 'hex'), encode(float4send(embed_norm), 'hex') "
        "FROM pgrecall.chunk_vectors WHERE tenant_id = %s AND collection = %s ORDER BY chunk_id",
        (tenant, collection),
    ).fetchall()


def everything(store: PostgresVectorStore) -> tuple[object, ...]:
    return store.list_chunks(limit=1000, with_embeddings=True), store.list_documents(limit=1000)


def body(lines: list[str]) -> list[str]:
    return lines[1:]


@pytest.mark.parametrize("distance", ["cosine", "l2", "ip"])
def test_the_same_top_10_comes_out(db: Database, tenant_id, admin_connection, distance):
    """An imported collection has the same rows, the same bytes of vectors and norms, and gives the same hits."""
    space = EmbedSpace("test", "eight", 8, distance)
    source = db.tenant(tenant_id).vectors("handbook", space)
    source.upsert(awkward_chunks(), documents=DOCUMENTS)
    lines = list(export_lines(source))
    result = import_lines(db.tenant(f"{tenant_id}-copy"), lines)
    assert (result.written, len(result.ids)) == (30, 30)
    copy = db.tenant(f"{tenant_id}-copy").vectors("handbook", space)
    assert everything(copy) == everything(source) and source.list_documents()[0].content_hash is None
    assert {d.id: d for d in copy.list_documents()}["c-doc-0"] == DOCUMENTS[0]
    for query in vectors(5, seed=3):
        hits = source.query(query, 10)
        assert copy.query(query, 10) == hits and len(hits) == 10
    assert stored(admin_connection, f"{tenant_id}-copy") == stored(admin_connection, tenant_id)
    assert body(list(export_lines(copy))) == body(lines)


def test_a_second_import_changes_nothing(db, tenant_id, space):
    """Importing over what was exported finds every row as it is, norms included."""
    store = db.tenant(tenant_id).vectors("handbook", space)
    store.upsert(awkward_chunks())
    result = import_lines(db.tenant(tenant_id), list(export_lines(store)))
    assert (result.written, result.unchanged) == (0, 30)


def test_pages_join_without_a_gap(db, tenant_id, space, monkeypatch):
    """Read in pages of seven, each chunk and each document is exported once, in order."""
    monkeypatch.setattr(chunk_ops, "PAGE", 7)
    store = db.tenant(tenant_id).vectors("handbook", space)
    store.upsert(chunks(50, per_document=1))
    records = [json.loads(line) for line in export_lines(store)]
    assert [r["document"]["id"] for r in records if "document" in r] == sorted(f"c-doc-{n}" for n in range(50))
    assert [r["chunk"]["id"] for r in records if "chunk" in r] == [f"c{n:04d}" for n in range(50)]
    assert records[-1] == {"end": {"documents": 50, "chunks": 50}}


def test_a_page_follows_the_primary_key(admin_connection):
    """No page sorts its collection: an export of 100,000 chunks, which sorted it for each page, took a minute."""
    admin_connection.execute("SET enable_sort = off")  # so that the planner sorts only where nothing else will do
    admin_connection.execute("SET search_path = pg_catalog, public")
    values = {"tenant": "t", "collection": "c", "after": "x", "limit": 10, "offset": 0, "ids": None}
    for page in (reads.listing(Where.of(None), with_vectors=True, page=True), reads.DOCUMENTS):
        plan = admin_connection.execute(f"EXPLAIN {page}", values).fetchall()
        assert "_pkey" in str(plan) and "Sort" not in str(plan)


def test_full_text_and_fingerprint_come_along(db, tenant_id, space, admin_connection):
    """A new collection keeps full text in the same language, and refuses the model that the old one refuses."""

    def embed(texts):
        return [np.full(8, len(text)) + np.arange(8) for text in texts]

    store = db.tenant(tenant_id).vectors("handbook", space, embed=embed, text_config="english")
    store.upsert([Chunk("1", "The cats were running"), Chunk("2", "Nothing of the kind")])
    copied = db.tenant(f"{tenant_id}-copy")
    import_lines(copied, export_lines(store), "other name")
    rows = admin_connection.execute(
        "SELECT fingerprint, text_config FROM pgrecall.collections WHERE tenant_id = ANY (%s)",
        ([tenant_id, f"{tenant_id}-copy"],),
    ).fetchall()
    assert rows[0] == rows[1] and rows[0][1] == "english" and len(rows[0][0]) == 8
    [(found,)] = admin_connection.execute(
        "SELECT count(*) FROM pgrecall.chunks WHERE tenant_id = %s AND text_search @@ 'cat & run'",
        (f"{tenant_id}-copy",),
    ).fetchall()
    assert found == 1
    with pytest.raises(FingerprintMismatch):
        copied.vectors("other name", space, embed=lambda texts: vectors(len(texts))).query([1.0] * 8)


def test_an_empty_collection_comes_back_empty(db, tenant_id, space):
    """A collection without chunks is exported, and created again with its space."""
    store = db.tenant(tenant_id).vectors("handbook", space)
    store.upsert(chunks(1))
    store.delete(["c0000"])
    store.delete_by_doc_id("c-doc-0")
    lines = list(export_lines(store))
    assert len(lines) == 2
    import_lines(db.tenant(f"{tenant_id}-copy"), lines)
    assert db.tenant(f"{tenant_id}-copy").collection_info("handbook").space == space


def test_a_collection_of_another_space_is_left_alone(db, tenant_id, space):
    """Vectors of another model are not imported into a collection, and nothing else of the file is."""
    source = db.tenant(tenant_id).vectors("source", space)
    source.upsert(chunks(3), documents=DOCUMENTS)
    target = db.tenant(tenant_id).vectors("target", EmbedSpace("test", "other", 8))
    target.upsert([Chunk("mine", "text", [1.0] * 8)])
    with pytest.raises(EmbedSpaceMismatch, match="test/other"):
        import_lines(db.tenant(tenant_id), export_lines(source), "target")
    assert [c.id for c in target.list_chunks()] == ["mine"] and target.list_documents() == []


def test_what_does_not_exist_is_not_exported(db, tenant_id, space):
    """NotFound comes at once, before a file is opened for the lines."""
    with pytest.raises(NotFound, match="handbook"):
        export_lines(db.tenant(tenant_id).vectors("handbook", space))


def changed(at: int, **fields: object) -> Callable[[list[str]], list[str]]:
    def change(lines: list[str]) -> list[str]:
        record = json.loads(lines[at])
        next(iter(record.values())).update(fields)
        return [*lines[:at], json.dumps(record), *lines[at + 1 :]]

    return change


def replaced(at: int, text: str) -> Callable[[list[str]], list[str]]:
    return lambda lines: [*lines[:at], text, *lines[at + 1 :]]


def fingerprint(values: list[float]) -> Callable[[list[str]], list[str]]:
    return lambda lines: [json.dumps(json.loads(lines[0]) | {"fingerprint": values}), *lines[1:]]


# Lines, counted from one: the header, six documents, thirty chunks (line 8 is the first), the end.
MALFORMED = {
    "not JSON": (replaced(9, '{"chunk": '), r"line 10 is not JSON"),
    "a list": (replaced(9, "[1]"), r"line 10 is '\[1\]'"),
    "deep": (replaced(9, '{"chunk": ' + "[" * 100_000), r"line 10 is not JSON"),
    "unknown": (replaced(9, '{"image": {}}'), r"line 10 is a 'image'"),
    "a document among chunks": (lambda s: [*s[:9], s[1], *s[9:]], r"line 10 is a 'document'"),
    "fields missing": (replaced(9, '{"chunk": {"id": "x"}}'), r"line 10: the chunk has \['id'\]; expected"),
    "text is a number": (changed(9, text=5), r"line 10: the chunk's text is 5; expected str"),
    "index is a bool": (changed(9, index=True), r"line 10: the chunk's index is True"),
    "vector too short": (changed(9, embedding=[1.0]), r"line 10: the chunk's embedding has 1 numbers; expected 8"),
    "vector of words": (changed(9, embedding=["1"] * 8), r"line 10: .*not a number"),
    "norm of zero": (changed(9, norm=0), r"line 10: the chunk's norm is 0"),
    "vector of NaN": (changed(9, embedding=[float("nan")] * 8), r"chunk '.*NaN"),
    "number beyond floats": (changed(9, embedding=[10**400] * 8), r"line 10: the chunk's embedding has an integer"),
    "norm beyond floats": (changed(9, norm=10**400), r"line 10: the chunk's norm is 1000"),
    "document without id": (changed(2, id=None), r"line 3: the document's id is None"),
    "truncated": (lambda s: s[:20], r"truncated"),
    "a line lost": (lambda s: [*s[:9], *s[10:]], r"line 37: .*29.*but.*30"),
    "something after": (lambda s: [*s, s[9]], r"line 39 follows the last line"),
    "no header": (lambda s: s[1:], "is not the header"),
    "empty": (lambda s: [], "is not the header"),
    "newer format": (replaced(0, '{"pgrecall": 2}'), "line 1: .*format 2.*Upgrade"),
    "fingerprint of NaN": (fingerprint([float("nan")] * 8), "line 1: .*the fingerprint is not a vector"),
    "fingerprint of zeros": (fingerprint([0] * 8), "line 1: .*the fingerprint is not a vector"),
    "fingerprint beyond singles": (fingerprint([1e300] * 8), "line 1: .*the fingerprint is not a vector"),
    "fingerprint beyond floats": (fingerprint([10**400] * 8), "line 1: the header can't be read"),
    "not lines": (lambda s: [s[0], 5], "line 2 is int; expected a line of an export"),
    "header cut": (replaced(0, '{"pgrecall": 1, "tenant": "x"}'), "line 1: the header can't be read"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_file_is_refused_whole(db, tenant_id, space, case):
    """The error names the line, and neither a chunk nor the collection is there afterwards."""
    store = db.tenant(tenant_id).vectors("handbook", space)
    store.upsert(awkward_chunks())
    change, message = MALFORMED[case]
    with pytest.raises(InvalidInput, match=message):
        import_lines(db.tenant(tenant_id), change(list(export_lines(store))), "copy")
    assert db.tenant(tenant_id).collection_info("copy") is None


def test_parts_can_be_committed_by_themselves(db, tenant_id, space):
    """With commit_every, what came before the bad line is kept, in whole parts."""
    store = db.tenant(tenant_id).vectors("handbook", space)
    store.upsert(awkward_chunks())
    lines = replaced(30, "{")(list(export_lines(store)))
    seen: list[int] = []
    with pytest.raises(InvalidInput, match="line 31"):
        import_lines(db.tenant(tenant_id), lines, "copy", commit_every=10, progress=lambda done, _: seen.append(done))
    assert db.tenant(tenant_id).vectors("copy").count() == 20 and seen == [10, 20]
