"""Extreme text and vectors are stored exactly, or refused by a rule that can be stated."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import psycopg
import pytest

from pgrecall import Chunk, Document, EmbedSpace, InvalidInput
from pgrecall.operations.chunks import upsert as ingest
from support.data import chunks

ONES = [1.0] * 8


@pytest.fixture
def store(db, tenant_id, space):
    return db.tenant(tenant_id).vectors("handbook", space)


WORDS = {
    "5 MB of unique words": " ".join(f"word{n:x}" for n in range(500_000)),
    "tiny words": " ".join(chr(0x4E00 + n % 20_000) + chr(97 + n // 20_000) for n in range(200_000)),
    "hyphenated": " ".join(f"{chr(0x20000 + n % 40_000)}-{chr(0x20001 + n % 39_999)}" for n in range(60_000)),
    # Each word is indexed twice, whole and in parts: nothing comes closer to the limit (0.8 MB of lexemes).
    "long hyphenated": " ".join(
        f"{''.join(map(chr, pair[:50]))}-{''.join(map(chr, pair[50:]))}"
        for pair in np.random.default_rng(0).integers(0x20000, 0x2A000, (2_000, 100)).tolist()
    ),
    "addresses": " ".join(f"http://h{n:x}.example/p{n:x} u{n:x}@e{n:x}.de" for n in range(60_000)),
    "4-byte letters": " ".join(chr(0x20000 + n % 42_000) * (2 + n // 42_000) for n in range(120_000)),
    "one word of 5 MB": "x" * 5_000_000,
    "numbers": " ".join(f"{n}.{n}e-{n % 300}" for n in range(120_000)),
}


@pytest.mark.parametrize("text", WORDS.values(), ids=WORDS)
@pytest.mark.parametrize("config", ["simple", "english", "turkish"])
def test_text_beyond_the_limit_of_full_text_is_stored_whole(db, tenant_id, space, admin_connection, text, config):
    """Where full text is kept, a text whose words pass tsvector's 1 MB is stored whole, and indexed."""
    store = db.tenant(tenant_id).vectors("text", space, text_config=config)
    assert store.upsert([Chunk("1", text, ONES), Chunk("2", "short", ONES)]).written == 2
    assert store.get(["1"])[0].text == text
    count = "SELECT count(*) FROM pgrecall.chunks WHERE tenant_id = %s AND text_search IS NOT NULL"
    assert admin_connection.execute(count, [tenant_id]).fetchone() == (2,)


def test_a_text_of_10_mb_is_stored_exactly(store):
    """Size alone is no error."""
    text = "".join(chr(c) for c in np.random.default_rng(1).integers(32, 0xD7FF, 4_000_000))
    assert len(text.encode()) > 10_000_000
    store.upsert([Chunk("1", text, ONES)])
    assert store.query(ONES)[0].text == text
    assert store.upsert([Chunk("1", text, ONES)]).unchanged == 1


def test_a_batch_too_large_for_one_message_is_cut(store, monkeypatch):
    """Texts, metadata and payloads of any total size go in by statements that the server takes."""
    sizes = []

    def measured(self, query, params=None, **options):
        sizes.append(sum(len(v) for v in (params or {}).values() if isinstance(v, bytes)))
        return execute(self, query, params, **options)

    execute = psycopg.Connection.execute
    monkeypatch.setattr(psycopg.Connection, "execute", measured)
    monkeypatch.setattr(ingest, "MESSAGE_BYTES", 10_000)
    large = {"x": "y" * 1_000}
    made = [replace(c, text=f"{c.id}" * 200, metadata=large, payload=large) for c in chunks(100)]
    assert store.upsert(made).ids == [c.id for c in made]
    assert max(sizes) < 12_000
    assert [c.text for c in store.list_chunks()] == [c.text for c in made]
    assert store.upsert(made).unchanged == 100


@pytest.mark.parametrize("text", ["", " ", "\r\n\t\x01\x7f\x85\u2028", "\ufeff\ufffe", "e\u0301", "%s %(x)s :x {}"])
def test_odd_text_comes_back_as_it_was(store, text):
    """Empty, control characters, unnormalised, placeholders: nothing is trimmed or read as code."""
    store.upsert([Chunk("1", text, ONES, "d", metadata={text: text})], documents=[Document("d", text, text, text)])
    [hit] = store.query(ONES)
    assert (hit.text, hit.metadata, hit.source, hit.uri) == (text, {text: text}, text, text)


NUL_CHUNKS = {
    "text": (Chunk("n", "a\0b", ONES), {"text": "ab"}),
    "metadata value": (Chunk("n", "t", ONES, metadata={"k": ["a\0b"]}), {"metadata": {"k": ["ab"]}}),
    "metadata key": (Chunk("n", "t", ONES, metadata={"a\0b": 1}), {"metadata": {"ab": 1}}),
    "payload": (Chunk("n", "t", ONES, payload={"k\0": {"a": "\0"}}), {"payload": {"k": {"a": ""}}}),
}


@pytest.mark.parametrize(("chunk", "kept"), NUL_CHUNKS.values(), ids=NUL_CHUNKS)
def test_nul_characters_are_refused_or_dropped_on_request(store, chunk, kept):
    """By default an error that names chunk and place; with on_nul="strip" the rest is kept."""
    with pytest.raises(InvalidInput, match=r"of chunk 'n'.* NUL character"):
        store.upsert([chunk])
    store.upsert([chunk], on_nul="strip")
    [found] = store.get(["n"])
    assert {name: getattr(found, name) for name in kept} == kept
    assert store.upsert([chunk], on_nul="strip").unchanged == 1


def test_nul_characters_in_a_document(store):
    """Each of its fields, in both ways of giving one; two keys that would become one are an error."""
    document = Document("d", "s\0", "u\0", "h\0", {"k\0": "v\0"})
    with pytest.raises(InvalidInput, match=r"the source of document 'd' contains a NUL character.*on_nul='strip'"):
        store.upsert([], documents=[document])
    store.replace_document(document, [Chunk("1", "t\0", ONES)], on_nul="strip")
    assert store.list_documents() == [Document("d", "s", "u", "h", {"k": "v"})]
    with pytest.raises(InvalidInput, match="two keys are the same"):
        store.upsert([Chunk("1", "t", ONES, metadata={"k": 1, "k\0": 2})], on_nul="strip")
    with pytest.raises(InvalidInput, match="on_nul is 'drop'; expected 'error' or 'strip'"):
        store.upsert([], on_nul="drop")


@pytest.mark.parametrize("dim", [1, 2, 2_000, 4_096, 16_000])
def test_spaces_of_every_length_store_and_search(db, tenant_id, dim):
    """From 1 to 16,000 dims the nearest is found, and its embedding comes back whole."""
    store = db.tenant(tenant_id).vectors("wide", EmbedSpace("test", "wide", dim, "l2"))
    made = chunks(20, dim)
    store.upsert(made)
    [hit] = store.query(made[7].embedding, 1)
    assert hit.distance == pytest.approx(0, abs=2e-3)
    assert dim == 1 or hit.chunk_id == "c0007"
    assert store.get(["c0007"], with_embeddings=True)[0].embedding == pytest.approx(made[7].embedding, abs=1e-3)


@pytest.mark.parametrize("scale", [1e-9, 1e6])
def test_the_scale_of_cosine_vectors_changes_no_result(db, store, tenant_id, space, admin_connection, scale):
    """Vectors, and queries, times 1e-9 or 1e6 give the unscaled scores; the norm is kept as it was given."""
    made = chunks(40)
    scaled = db.tenant(tenant_id).vectors("scaled", space)
    store.upsert(made)
    scaled.upsert([Chunk(c.id, c.text, c.embedding.astype(float) * scale) for c in made])
    query = made[5].embedding.astype(float)
    plain, other = store.query(query, 40), scaled.query(query * scale, 40)
    assert [h.chunk_id for h in plain] == [h.chunk_id for h in other]
    assert [h.score for h in plain] == pytest.approx([h.score for h in other], abs=1e-3)
    norms = admin_connection.execute(
        "SELECT min(embed_norm), max(embed_norm) FROM pgrecall.chunk_vectors "
        "WHERE tenant_id = %s AND collection = 'scaled'",
        [tenant_id],
    ).fetchone()
    assert norms == pytest.approx((scale, scale), rel=1e-5)
