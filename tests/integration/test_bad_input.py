"""Wrong input is refused with an error that names it, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import traceback
from datetime import UTC, datetime

import numpy as np
import pytest

import pgrecall
from pgrecall import (
    Chunk,
    Document,
    F,
    FilterError,
    InvalidEmbedding,
    InvalidInput,
    PgRecallError,
    Tenant,
)
from support.data import chunks

ONES = [1.0] * 8


@pytest.fixture
def store(db, tenant_id, space):
    return db.tenant(tenant_id).vectors("handbook", space)


# Ids and names

LONG_IDS = {
    "5 kB": ("x" * 5_000, "5,000 bytes; expected at most 1,000"),
    "1,001 bytes": ("é" * 500 + "x", "1,001 bytes; expected at most 1,000"),
    "empty": ("", "is empty; expected a non-empty string"),
    "NUL": ("a\0b", "NUL character .*; remove it"),
    "surrogate": ("a\ud800", "not valid Unicode"),
    "None": (None, "is NoneType None; expected a string"),
    "number": (7, "is int 7; expected a string"),
    "bytes": (b"x", "is bytes b'x'; expected a string"),
}


@pytest.mark.parametrize(("bad", "message"), LONG_IDS.values(), ids=LONG_IDS)
def test_every_method_refuses_a_bad_id(store, bad, message):
    """Whichever argument it comes in, the error says what is wrong with it and what is the most."""
    store.upsert(chunks(2))
    calls = [
        lambda: store.upsert([*chunks(2, prefix="n"), Chunk(bad, "t", ONES)]),
        lambda: store.upsert([], documents=[Document(bad)]),
        lambda: store.replace_document(Document(bad), [Chunk("n", "t", ONES)]),
        lambda: store.query(ONES, ids=["c0000", bad]),
        lambda: store.query(ONES, doc_ids=[bad]),
        lambda: store.get([bad]),
        lambda: store.list_chunks(ids=[bad]),
        lambda: store.list_documents([bad]),
        lambda: store.count(doc_ids=[bad]),
        lambda: store.set_metadata({}, ids=[bad]),
        lambda: store.delete(["c0000", bad]),
        lambda: store.delete_by_doc_id(bad),
    ]
    if bad is not None:  # a chunk without a document is none of these
        calls.append(lambda: store.upsert([Chunk("n", "t", ONES, doc_id=bad)]))
    for call in calls:
        with pytest.raises(InvalidInput, match=message) as caught:
            call()
        assert len(str(caught.value)) < 300
    assert store.count() == 2


@pytest.mark.parametrize("longest", ["x" * 1_000, "é" * 500, "😀" * 250], ids=["ASCII", "2 bytes", "4 bytes"])
def test_the_longest_ids_and_names_work(db, space, longest):
    """Ids of exactly 1,000 bytes and names of exactly 200, together in every key, fit the indexes."""
    name = longest[: len(longest) // 5]
    store = db.tenant(name).vectors(name, space)
    random = np.random.default_rng(0)  # so that nothing compresses
    noise = "".join(chr(c) for c in random.integers(0x4E00, 0x9FFF, 333)) + "x"
    store.upsert([Chunk(i, "t", ONES, doc_id=i) for i in (longest, noise)])
    assert sorted(h.chunk_id for h in store.query(ONES)) == sorted([longest, noise])
    assert store.delete_by_doc_id(noise).chunks == 1
    assert db.delete_tenant(name)["chunks"] == 1
    db.create_tenant(name, reopen=True)


@pytest.mark.parametrize("bad", ["x" * 201, "é" * 100 + "x", "", "a\0", "\udfff", None, 5])
def test_tenants_and_collections_have_their_cap(db, bad):
    """A name of more than 200 bytes, or that no text column holds, is refused before anything is asked."""
    tenant = db.tenant("-")
    for call, what in (
        (lambda: db.tenant(bad), "tenant"),
        (lambda: db.create_tenant(bad), "tenant"),
        (lambda: db.delete_tenant(bad), "tenant"),
        (lambda: db.tenant_info(bad), "tenant"),
        (lambda: tenant.vectors(bad), "collection"),
        (lambda: tenant.collection_info(bad), "collection"),
        (lambda: tenant.drop_collection(bad), "collection"),
    ):
        with pytest.raises(InvalidInput, match=f"^{what} .*(at most 200|expected a|remove it|repair)"):
            call()


# Metadata

DEEP = {"a": 1}
for _ in range(300):
    DEEP = {"a": DEEP}

BAD_METADATA = {
    "NaN": ({"k": float("nan")}, r"\['k'\]: found the float nan, expected a finite number"),
    "infinity": ({"k": [1, float("-inf")]}, r"\['k'\]\[1\]: found the float -inf"),
    "key of a number": ({1: "x"}, "found the key 1 of type int, expected a string"),
    "datetime": (
        {"k": datetime(2024, 1, 1, tzinfo=UTC)},
        "found datetime.datetime, expected a JSON value .*convert",
    ),
    "numpy number": ({"k": np.float32(1)}, "found numpy.float32"),
    "bytes": ({"k": b"x"}, "found bytes"),
    "set": ({"k": {1}}, "found set"),
    "surrogate": ({"k": "\ud800"}, "lone surrogate"),
    "too deep": (DEEP, "nested deeper than 200 levels"),
    "list": ([1], "is list; expected a mapping of string keys"),
    "string": ("k", "is str; expected a mapping"),
    "None": (None, "is NoneType; expected a mapping"),
}


@pytest.mark.parametrize(("bad", "message"), BAD_METADATA.values(), ids=BAD_METADATA)
def test_metadata_that_json_can_not_hold_is_refused(store, bad, message):
    """The error names the chunk or document and the path to what is wrong; nothing is written."""
    store.upsert(chunks(1))
    for owner, call in (
        ("chunk 'n'", lambda: store.upsert([Chunk("n", "t", ONES, metadata=bad)])),
        ("document 'n'", lambda: store.upsert([], documents=[Document("n", metadata=bad)])),
        ("the metadata", lambda: store.set_metadata(bad, ids=["c0000"])),
    ):
        with pytest.raises(InvalidInput, match=message) as caught:
            call()
        assert owner in str(caught.value)
    assert (store.count(), len(store.list_documents())) == (1, 1)


# Batches, generators, groups


def test_the_last_chunk_of_2500_can_undo_them_all(store):
    """A list and a generator alike: one bad chunk at the very end, named, leaves nothing of the call."""
    many = [*chunks(2_500), Chunk("the-bad-one", "t", [float("nan")] * 8)]
    for given in (many, iter(many), (c for c in many)):
        with pytest.raises(InvalidEmbedding, match="chunk 'the-bad-one' has NaN"):
            store.upsert(given)
        assert (store.count(), store.list_documents()) == (0, [])


def test_a_source_that_breaks_in_the_middle_leaves_nothing(store):
    """A generator's own error, sync or async, comes through as it is, though batches were sent already."""

    def broken():
        yield from chunks(1_500)
        raise OSError("disk")

    async def abroken():
        for chunk in broken():
            yield chunk

    with pytest.raises(OSError, match="disk"):
        store.upsert(broken())
    with pytest.raises(OSError, match="disk"):
        asyncio.run(store.aupsert(abroken()))
    with pytest.raises(InvalidInput, match="expected a synchronous one; call aupsert"):
        store.upsert(abroken())
    assert store.count() == 0


@pytest.mark.parametrize("as_given", [list, iter], ids=["list", "generator"])
def test_committed_groups_stay(store, as_given):
    """With commit_every, groups before the bad one are kept whole, its own and later ones are not."""
    made = chunks(25)
    made[17] = Chunk("bad", "t", [1.0] * 7)
    seen = []
    with pytest.raises(InvalidEmbedding, match="'bad'"):
        store.upsert(as_given(made), commit_every=5, progress=lambda done, total: seen.append((done, total)))
    assert [c.id for c in store.list_chunks()] == [c.id for c in made[:15]]
    assert seen == [(n, 25 if as_given is list else None) for n in (5, 10, 15)]
    made[17] = chunks(25)[17]
    result = store.upsert(as_given([*made, made[0]]), commit_every=5)
    assert (result.ids[-1], len(result.ids), result.written, result.unchanged) == ("c0000", 26, 10, 15)


# Wrong types


def test_wrong_types_are_named(store, space):
    """What was given and what belongs there stand in the error; nothing is guessed."""
    bare = {"id": "1", "text": "t", "embedding": ONES}
    cases = [
        (lambda: store.upsert([bare]), "a chunk is dict; expected pgrecall.Chunk"),
        (lambda: store.upsert(bare), "dict was given; expected an iterable of pgrecall.Chunk"),
        (lambda: store.upsert("abc"), "str was given; expected an iterable"),
        (
            lambda: store.upsert(chunks(1)[0]),
            "Chunk was given; expected an iterable of pgrecall.Chunk, such as a list",
        ),
        (lambda: store.upsert(None), "NoneType was given; expected an iterable"),
        (
            lambda: store.upsert([Chunk("1", None, ONES)]),
            "the text of chunk '1' is NoneType; expected a string",
        ),
        (lambda: store.upsert([Chunk("1", b"t", ONES)]), "the text of chunk '1' is bytes; expected a string"),
        (lambda: store.upsert([Chunk("1", "\ud800", ONES)]), "the text of chunk '1' contains a lone surrogate"),
        (
            lambda: store.upsert([Chunk("1", "t", ONES, index=1.5)]),
            "the index of chunk '1' is 1.5; expected a whole",
        ),
        (lambda: store.upsert([Chunk("1", "t", ONES, index=2**31)]), "the index of chunk '1' is 2147483648"),
        (lambda: store.upsert([Chunk("1", "t", ONES, payload="x")]), "the payload of chunk '1' is str"),
        (
            lambda: store.upsert([], documents=Document("d")),
            "Document was given; expected an iterable of .*Document",
        ),
        (lambda: store.upsert([], documents=["d"]), "a document is str; expected pgrecall.Document"),
        (lambda: store.upsert([], documents=[Document("d", source=1)]), "source of document 'd' is int"),
        (
            lambda: store.upsert([], documents=[Document("d", uri="\ud800")]),
            "uri of document 'd' contains a lone surrogate",
        ),
        (
            lambda: store.upsert([], commit_every=0),
            "commit_every is 0; expected a whole number of at least 1",
        ),
        (lambda: store.upsert([], commit_every=True), "commit_every is True"),
        (lambda: store.replace_document("d", []), "the document is str; expected pgrecall.Document"),
        (lambda: store.replace_document(Document("d"), [bare]), "a chunk is dict; expected pgrecall.Chunk"),
        (lambda: store.get("abc"), "ids is str 'abc'; expected a list of ids"),
        (lambda: store.get(i for i in "abc"), "ids is generator .*; expected a list of ids"),
        (lambda: store.delete(7), "ids is int 7; expected a list of ids"),
        (lambda: store.query(ONES, 1.0), "top_k is 1.0; expected a whole number of at least 1"),
        (lambda: store.list_chunks(limit="9"), "limit is '9'; expected a whole number of at least 0"),
        (lambda: store.set_metadata({}), "the condition matches the whole collection; pass ids= or filters="),
    ]
    for call, message in cases:
        with pytest.raises(InvalidInput, match=message):
            call()
    for filters in ({"lang": "de"}, F.lang, "lang = 'de'", [F.lang == "de"]):
        with pytest.raises(FilterError, match=r"filters is \w+; expected a filter such as F\.lang == 'de'"):
            store.query(ONES, filters=filters)
    assert store.count() == 0


def test_numpys_integers_and_arrays_are_taken(store):
    """Indexes, ids and sizes as they come from numpy or a data frame; a huge size means all."""
    made = [Chunk(f"n{n}", "t", ONES, index=number) for n, number in enumerate(np.arange(3))]
    assert store.upsert(made, commit_every=2**70).written == 3
    assert store.upsert(made, commit_every=np.int64(2)).unchanged == 3
    assert [(c.id, c.index) for c in store.get(np.array(["n2", "n0"]))] == [("n2", 2), ("n0", 0)]
    assert store.get(np.array([], dtype=str)) == []
    said = Tenant(store._backend, store.tenant_id).vectors("said", store._model.given, text_config="simple")
    said.upsert(made)
    for size in (2**62, 2**70):
        assert len(said.query(ONES, size, text="t")) == len(said.query_mmr(ONES, size, text="t")) == 3
        assert len(said.query(ONES, text="t", fetch_k=size, sparse_k=size)) == 3


def test_full_text_that_the_collection_does_not_keep_is_refused(db, tenant_id, space):
    """text_config given late or differently is an error, not a store that silently has no full text of that kind."""
    tenant = db.tenant(tenant_id)
    tenant.vectors("plain", space).upsert(chunks(1))
    tenant.vectors("english", space, text_config="english").upsert(chunks(1))
    for name, how in (("plain", "without full-text search"), ("english", "with text_config='english'")):
        with pytest.raises(InvalidInput, match=f"'{name}' was created {how}, but text_config='german' was requested"):
            tenant.vectors(name, space, text_config="german").upsert(chunks(2))
        assert tenant.vectors(name).count() == 1
    assert tenant.vectors("english", space, text_config="english").upsert(chunks(2)).written == 1


def test_an_embedding_function_that_misbehaves_leaves_nothing(db, tenant_id, space):
    """A wrong number of vectors, none, wrong ones, its own error, or a coroutine in a sync call."""

    async def awaited(texts):
        return [ONES] * len(texts)

    def raising(texts):
        raise TimeoutError("model is down")

    bare = [Chunk(f"n{n}", f"text {n}") for n in range(3)]
    for embed, error, message in (
        (lambda texts: [ONES], InvalidEmbedding, "returned 1 vectors for 3 texts; expected one for each"),
        (lambda texts: [ONES] * 4, InvalidEmbedding, "returned 4 vectors for 3 texts"),
        (
            lambda texts: None,
            InvalidEmbedding,
            "returned NoneType; expected a list of vectors, one for each of 3 texts",
        ),
        (lambda texts: [[1.0]] * 3, InvalidEmbedding, "chunk 'n0' has 1 dimensions"),
        (awaited, InvalidInput, "asynchronous, but the call is not; call the store's a… methods"),
        (raising, TimeoutError, "model is down"),
        ("model", InvalidInput, "embed is str; expected a function"),
    ):
        store = db.tenant(tenant_id).vectors("handbook", space)
        with pytest.raises(error, match=message):
            store.upsert(bare, embed=embed)
        assert store.count() == 0
    assert asyncio.run(store.aupsert(bare, embed=awaited)).embedded == 3


# Secrets

PASSWORD = "s3cret-Pa55"


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://user:{PASSWORD}@127.0.0.1:1/db",
        f"postgresql://user:{PASSWORD}@no-such-host.invalid/db",
        f"postgresql://user@127.0.0.1:1/db?password={PASSWORD}",
        f"postgresql://user:{PASSWORD}@127.0.0.1:port/db",
        f"user:{PASSWORD}@127.0.0.1",
        f"mysql://user:{PASSWORD}@127.0.0.1/db",
        f"postgresql://user:{PASSWORD}@127.0.0.1:1/db?no_such_option=1",
    ],
    ids=[
        "refused",
        "unknown host",
        "in the query",
        "bad port",
        "no scheme",
        "another database",
        "bad option",
    ],
)
def test_a_password_is_never_seen_again(url):
    """Neither in the error, its causes and contexts, nor in the repr of what was made."""

    def first_use():
        with pgrecall.connect(url, connect_timeout=2) as db:
            store = db.tenant("t").vectors()
            assert PASSWORD not in f"{db!r} {db.tenant('t')!r} {store!r} {db.backend.engines!r}"
            store.count()

    with pytest.raises(PgRecallError) as caught:
        first_use()
    assert PASSWORD not in "".join(traceback.format_exception(caught.value))
    chain, error = [], caught.value
    while error is not None:
        chain += [str(error), repr(error)]
        error = error.__cause__ or error.__context__
    assert PASSWORD not in "".join(chain)
