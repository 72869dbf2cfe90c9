"""Declared keys: every write keeps entries; they are filled during writes, and dropped while others still know them."""

from __future__ import annotations

import random
import threading

import pytest

import pgrecall
from conftest import as_dsn
from pgrecall import Chunk, EmbedSpace, F, InvalidInput, NotFound, transfer
from pgrecall.filters import keys as entries
from pgrecall.jsonable import dumps
from pgrecall.operations.chunks import keys
from support.cli import run as cli
from support.data import chunks, vectors
from support.filter_data import POOLS

ONES = [1.0] * 8
TYPES = ("text", "number", "bool")


@pytest.fixture
def tenant(db, tenant_id):
    return db.tenant(tenant_id)


@pytest.fixture
def store(tenant, space):
    return tenant.vectors("c", space)


def kept(connection, tenant_id):
    """The entries of a tenant: chunk, the key's number, value."""
    query = "SELECT chunk_id, key, value FROM pgrecall.chunk_keys WHERE tenant_id = %s ORDER BY 1, 2, 3"
    return connection.execute(query, [tenant_id]).fetchall()


def ids(found):
    return sorted(getattr(each, "chunk_id", None) or each.id for each in found)


def put(store, **metadata):
    """Chunks of these ids with this metadata."""
    store.upsert(
        [Chunk(name, f"text of {name}", ONES, f"doc-{name}", metadata=value) for name, value in metadata.items()]
    )


# What is kept


def test_values_are_written_the_same_in_python_and_in_sql(store, tenant, tenant_id, admin_connection):
    """For each value of the pools the entry that a filter asks for is the one that the server made."""
    pool = [value for name in ("str", "int", "float", "bool") for value in POOLS[name]] + [
        "é" * 300,
        "x" * 201,
        10**308,
    ]
    store.upsert([Chunk(f"{n:03d}", "", ONES, metadata={"v": value}) for n, value in enumerate(pool)])
    for kind in TYPES:
        tenant.index_key("c", "v", kind)
    made = {chunk: value for chunk, _, value in kept(admin_connection, tenant_id)}
    assert made == {f"{n:03d}": entries.entry(dumps(value, "v")) for n, value in enumerate(pool)}


def test_numbers_beyond_doubles_and_long_texts_stay_exact(store, tenant):
    """2^53 and 2^53 + 1 share an entry, and so do texts with one long beginning: the filter itself tells them apart."""
    big, long = 2**53, "a" * 500
    put(store, a={"n": big, "t": long + "1"}, b={"n": big + 1, "t": long + "2"}, c={"n": 10**400, "t": long})
    tenant.index_key("c", "n", "number")
    tenant.index_key("c", "t")
    trees = (F.n == big, F.n == big + 1, F.n > big, F.n >= 10**399, F.n < big)
    assert [ids(store.list_chunks(tree)) for tree in trees] == [
        ["a"], ["b"], ["b", "c"], ["c"], [],
    ]  # fmt: skip
    assert [ids(store.list_chunks(tree)) for tree in (F.t == long, F.t > long, F.t.between(long, long + "1"))] == [
        ["c"], ["a", "b"], ["a", "c"],
    ]  # fmt: skip


def test_every_write_keeps_the_entries(store, tenant, tenant_id, admin_connection, db):
    """Upsert, set_metadata, replace_document, deletes and import: after each the entries are those of the metadata."""
    put(store, a={"lang": "de"}, b={"lang": ["en", "fr", "en"]}, c={"lang": 1}, d={})
    tenant.index_key("c", "lang")

    def now():
        return [(chunk, value) for chunk, _, value in kept(admin_connection, tenant_id)]

    assert now() == [("a", "de"), ("b", "en"), ("b", "fr")]
    put(store, a={"lang": "it"}, d={"lang": "es"}, e={"lang": "pt"})
    assert now() == [("a", "it"), ("b", "en"), ("b", "fr"), ("d", "es"), ("e", "pt")]
    assert store.set_metadata({"lang": ["en"]}, filters=F.lang.any(["fr", "no"])) == 1
    assert store.set_metadata({"other": 1}, ids=["d"], replace=True) == 1
    assert store.set_metadata({"lang": "en"}, ids=["unknown"]) == 0
    assert now() == [("a", "it"), ("b", "en"), ("e", "pt")]
    store.replace_document(pgrecall.Document("doc-a"), [Chunk("a2", "", ONES, metadata={"lang": "it"})])
    assert store.delete(filters=F.lang == "pt").chunks == 1
    assert now() == [("a2", "it"), ("b", "en")]
    lines = list(transfer.export_lines(store))
    other = tenant.vectors("copy", EmbedSpace("test", "eight", 8))
    put(other, x={"lang": "xx"})
    tenant.index_key("copy", "lang")
    transfer.import_lines(tenant, lines, "copy")
    assert now() == [("a2", "it"), ("a2", "it"), ("b", "en"), ("b", "en"), ("x", "xx")]
    assert other.drop().chunks == 5
    assert store.delete_by_doc_id("doc-a").chunks == 1
    assert now() == [("b", "en")]
    assert db.delete_tenant(tenant_id).deleted["chunks"] == 3
    assert now() == []


def test_what_did_not_change_is_not_written_again(store, tenant, tenant_id, admin_connection):
    """An upsert of the same chunks, and one of another text, leave the entries' rows where they are."""
    tables = "SELECT chunk_id, ctid::text FROM pgrecall.chunk_keys WHERE tenant_id = %s ORDER BY 1"
    put(store, a={"lang": "de"}, b={"lang": "en"})
    tenant.index_key("c", "lang")
    before = admin_connection.execute(tables, [tenant_id]).fetchall()
    put(store, a={"lang": "de"})
    store.upsert([Chunk("b", "another text", ONES, metadata={"lang": "en"})])
    assert admin_connection.execute(tables, [tenant_id]).fetchall() == before


# Declared, filled, ready, dropped


def test_a_key_is_listed_with_its_state_and_dropped(store, tenant, tenant_id, admin_connection):
    """Collections show their keys; declaring one again does nothing; dropping one deletes and counts its entries."""
    store.upsert(chunks(30))
    seen = []
    assert tenant.index_key("c", "lang", progress=lambda done, total: seen.append((done, total))).ready
    assert seen == [(30, 30)]
    assert tenant.index_key("c", ["lang"]).path == ("lang",)
    tenant.index_key("c", ("author", "age"), "number")
    shown = [(k.path, k.type, k.ready) for k in tenant.collection_info("c").indexed_keys]
    assert shown == [(("lang",), "text", True), (("author", "age"), "number", True)]
    assert (tenant.unindex_key("c", "lang"), kept(admin_connection, tenant_id)) == (30, [])
    assert [k.path for k in tenant.collection_info("c").indexed_keys] == [("author", "age")]
    assert store.count(F.lang == "de") == 10
    with pytest.raises(NotFound, match=r"no indexed key \['lang'\] of type text"):
        tenant.unindex_key("c", "lang")
    tenant.index_key("c", "lang")
    assert {number for _, number, _ in kept(admin_connection, tenant_id)} == {3}, "a number is never given again"


def test_keys_are_declared_with_a_new_collection(tenant, space, tenant_id, admin_connection):
    """They are ready from the first write; one that exists without them refuses the write and tells what to call."""
    wanted = {"lang": "text", ("author", "age"): "number"}
    store = tenant.vectors("c", space, indexed_keys=wanted)
    put(store, a={"lang": "de", "author": {"age": 7}})
    shown = [(k.path, k.type, k.ready) for k in tenant.collection_info("c").indexed_keys]
    assert shown == [(("lang",), "text", True), (("author", "age"), "number", True)]
    assert [(n, value[:4]) for _, n, value in kept(admin_connection, tenant_id)] == [(1, "de"), (2, "1401")]
    put(store, b={"lang": "en"})
    with pytest.raises(InvalidInput, match=r"no indexed key \['year'\] of type number; add it with tenant.index_key"):
        put(tenant.vectors("c", space, indexed_keys={"year": "number"}), c={})
    tenant.index_key("c", "year", "number")
    put(tenant.vectors("c", space, indexed_keys={"year": "number"}), c={"year": 1})
    assert {number for _, number, _ in kept(admin_connection, tenant_id)} == {1, 2, 3}
    for wrong in (["lang"], {"lang": "date"}, {("a", 1): "text"}, dict.fromkeys("abcdefghijklmnopq", "text")):
        with pytest.raises(InvalidInput):
            tenant.vectors("c", space, indexed_keys=wrong)


def test_a_key_that_can_not_be_is_refused(store, tenant):
    """Each error says what was found and what is expected; nothing is declared."""
    with pytest.raises(NotFound, match="'c' does not exist; the first write creates it"):
        tenant.index_key("c", "lang")
    store.upsert(chunks(1))
    for key, kind, message in (
        ("lang", "date", "the type is 'date'; expected one of text, number, bool"),
        (7, "text", "the key is int; expected a string"),
        ([], "text", "a filter's path: found tuple"),
        (["a", 1], "text", "found a key of type int"),
        ("x\0", "text", "NUL"),
    ):
        with pytest.raises(InvalidInput, match=message):
            tenant.index_key("c", key, kind)
    for number in range(keys.MOST_KEYS):
        tenant.index_key("c", f"key {number}")
    with pytest.raises(InvalidInput, match="has 16 indexed keys already; at most 16 are allowed"):
        tenant.index_key("c", "one more")


def test_a_key_is_used_only_once_it_is_filled_and_filling_goes_on_where_it_was_cut_off(
    store, tenant, monkeypatch, tenant_id, admin_connection
):
    """Cut off it is listed as not ready, filters find all, and writers enter it; a second call brings it to its end."""
    store.upsert(chunks(250))
    monkeypatch.setattr(keys, "BATCH", 100)

    def cut(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tenant.index_key("c", "lang", progress=cut)
    assert [key.ready for key in tenant.collection_info("c").indexed_keys] == [False]
    assert len(kept(admin_connection, tenant_id)) == 100
    assert store.count(F.lang == "de") == 84
    put(store, zz={"lang": "de"})
    assert ("zz", 1, "de") in kept(admin_connection, tenant_id)
    seen = []
    assert tenant.index_key("c", "lang", progress=lambda done, total: seen.append((done, total))).ready
    assert seen == [(100, 251), (200, 251), (251, 251)]
    assert len(kept(admin_connection, tenant_id)) == 251
    assert store.count(F.lang == "de") == 85


def test_a_key_that_is_dropped_while_it_is_filled_stops_the_filling(
    store, tenant, tenant_id, admin_connection, monkeypatch
):
    """The filling process gets an error and leaves no entries."""
    store.upsert(chunks(30))
    monkeypatch.setattr(keys, "BATCH", 10)
    with pytest.raises(NotFound, match="was dropped from collection 'c' while it was being filled"):
        tenant.index_key("c", "lang", progress=lambda done, total: done == 10 and tenant.unindex_key("c", "lang"))
    assert (kept(admin_connection, tenant_id), tenant.collection_info("c").indexed_keys) == ([], ())


def test_who_remembers_a_key_that_was_dropped_still_finds_everything(app_url, store, tenant, tenant_id, space):
    """Another process goes by what it learned for some seconds: its searches, counts and changes stay right."""
    store.upsert(chunks(60))
    tenant.index_key("c", "lang")
    with pgrecall.connect(app_url) as other:
        stale = other.tenant(tenant_id).vectors("c", space)
        question = vectors(1)[0]
        before = ids(stale.query(question, 60, F.lang == "de")), stale.count(F.lang == "de")
        tenant.unindex_key("c", "lang")
        for number in range(2):  # a key that takes the place of the first one in the settings
            tenant.index_key("c", f"other {number}")
        assert stale._run(lambda gate: other.backend.routes.keys(gate, stale._place(gate)))[0].path == ("lang",)
        assert (ids(stale.query(question, 60, F.lang == "de")), stale.count(F.lang == "de")) == before
        assert before[1] == len(before[0]) == 20
        assert stale.set_metadata({"seen": True}, filters=F.lang == "de") == 20
        assert stale.delete(filters=F.lang == "de").chunks == 20
        assert store.count() == 40


def test_keys_join_an_atomic_block(store, tenant, tenant_id, admin_connection):
    """What a block writes, declares and drops is there for its own filters at once, and for others with its commit."""
    store.upsert(chunks(30))
    with tenant.atomic():
        put(store, a={"lang": "it"})
        tenant.index_key("c", "lang")
        store.set_metadata({"lang": "it"}, filters=F.n < 2)
        assert store.count(F.lang == "it") == 3
    assert len(kept(admin_connection, tenant_id)) == 31
    before = kept(admin_connection, tenant_id)

    def fail():
        with tenant.atomic():
            store.delete(filters=F.lang == "it")
            tenant.unindex_key("c", "lang")
            tenant.index_key("c", "n", "number")
            raise ZeroDivisionError(store.count(F.n > 27))

    with pytest.raises(ZeroDivisionError, match="2"):
        fail()
    assert kept(admin_connection, tenant_id) == before
    assert (store.count(F.lang == "it"), store.count(F.n > 27)) == (3, 2)


def test_keys_come_and_go_while_others_write_and_read(db, tenant_id, space, admin_connection):
    """Writers of the same chunks, and one who declares and drops the key again and again: no error, none missed."""
    tenant = db.tenant(tenant_id)
    store = tenant.vectors("c", space)
    base = chunks(300)
    store.upsert(base)
    stop, failed = threading.Event(), []

    def worker(seed):
        rng = random.Random(seed)
        while not stop.is_set():
            try:
                some = [c.id for c in rng.sample(base, 40)]
                tag = rng.choice(["x", "y", "z"])
                match rng.randrange(4):
                    case 0:
                        put(store, **{name: {"tag": tag, "lang": tag} for name in some})
                    case 1:
                        store.set_metadata({"tag": tag}, ids=some)
                    case 2:
                        store.set_metadata({"tag": "x"}, filters=F.tag == tag)
                    case 3:
                        store.delete(some[:5])
                found = store.list_chunks(F.tag == "y", limit=1_000)
                assert all(chunk.metadata["tag"] == "y" for chunk in found)
            except BaseException as exc:
                failed.append(exc)
                raise

    workers = [threading.Thread(target=worker, args=(n,)) for n in range(3)]
    for one in workers:
        one.start()
    try:
        for _ in range(6):
            tenant.index_key("c", "tag")
            tenant.unindex_key("c", "tag")
        tenant.index_key("c", "tag")
    finally:
        stop.set()
        for one in workers:
            one.join()
    assert failed == []
    expected = sorted((c.id, c.metadata["tag"]) for c in store.list_chunks(limit=1_000) if "tag" in c.metadata)
    assert [(chunk, value) for chunk, _, value in kept(admin_connection, tenant_id)] == expected
    for tag in ("x", "y", "z"):
        assert store.count(F.tag == tag) == sum(value == tag for _, value in expected)


def test_a_writer_under_way_is_waited_for(db, tenant, tenant_id, space, admin_connection):
    """A key is declared after the writers that could not know of it: what they wrote is filled in, not missed."""
    store = tenant.vectors("c", space)
    store.upsert(chunks(5))
    started, go_on = threading.Event(), threading.Event()

    def slow():
        yield Chunk("early", "", ONES, metadata={"lang": "de"})
        started.set()
        go_on.wait(30)
        yield from (Chunk(f"late{n}", "", ONES, metadata={"lang": "de"}) for n in range(1_200))

    def lines():
        yield from (Chunk(f"first{n}", "", ONES, metadata={"lang": "de"}) for n in range(1_000))
        yield from slow()

    writer = threading.Thread(target=lambda: store.upsert(lines()))
    writer.start()
    assert started.wait(30)
    declaring = threading.Thread(target=lambda: tenant.index_key("c", "lang"))
    declaring.start()
    declaring.join(0.3)
    assert declaring.is_alive()
    go_on.set()
    writer.join()
    declaring.join()
    assert store.count(F.lang == "de") == 2 + 1_000 + 1 + 1_200
    assert len(kept(admin_connection, tenant_id)) == 5 + 1_000 + 1 + 1_200


# The command line


def test_the_command_line_indexes_shows_and_drops(app_url, store, tenant_id):
    """It takes KEY:TYPE and nested keys as JSON lists, has both outputs, and shows an example with each error."""
    store.upsert(chunks(12))
    common = ("-t", tenant_id, "-u", as_dsn(app_url))
    assert "indexed lang:text" in cli("collections", "index-key", "c", "lang:text", *common).out
    nested = '["author", "age"]:number'
    assert cli("collections", "index-key", "c", nested, *common, "--json").json["path"] == ["author", "age"]
    shown = cli("collections", "show", "c", *common)
    assert "lang:text" in shown.out and nested in shown.out
    listed = cli("collections", "show", "c", *common, "--json").json["indexed_keys"]
    assert listed[0] == {"path": ["lang"], "type": "text", "ready": True}
    done = cli("collections", "index-key", "c", "lang:text", "--drop", *common)
    assert "dropped the index on lang:text with 12 entries" in done.out
    again = cli("collections", "index-key", "c", "lang:text", "--drop", *common)
    assert (again.code, "no indexed key" in again.err) == (1, True)
    for wrong, message in (
        ("lang", "is not KEY:TYPE"),
        ("lang:date", "expected one of text"),
        ("[lang:text", "JSON list"),
    ):
        refused = cli("collections", "index-key", "c", wrong, *common)
        assert (refused.code, message in refused.err) == (2, True), refused.err
