"""Memory on Postgres: concurrent writers, hostile values, lifetimes, models, plans, and the trail's rights."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from conftest import as_dsn
from pgrecall import (
    EmbedSpace,
    F,
    Fact,
    FactKey,
    FingerprintMismatch,
    InvalidInput,
    PgRecallError,
    TenantErased,
    UnknownTenant,
    connect,
)

SPACE = EmbedSpace("test", "letters", 26)


def letters(texts):
    """Counts of letters: an embedding that anyone can check."""
    return [[text.lower().count(chr(97 + n)) + 0.01 for n in range(26)] for text in texts]


@pytest.fixture
def memory(db, tenant_id):
    return db.tenant(tenant_id).memory(actor="me", space=SPACE, embed=letters)


def race(db, tenant_id, writers, puts):
    """Each writer puts one fact again and again; the versions as stored."""
    stores = [db.tenant(tenant_id).memory(actor=f"writer-{n}") for n in range(writers)]

    def write(store):
        return [store.put_fact(Fact("ann", "count", "one", {"by": store.actor, "n": n})) for n in range(puts)]

    with ThreadPoolExecutor(writers) as pool:
        return [fact for facts in pool.map(write, stores) for fact in facts]


def one_chain(db, tenant_id, put):
    """One live version, one unbroken chain of all of them, an event each."""
    memory, count = db.tenant(tenant_id).memory(actor="reader"), len(put)
    [live] = memory.search_facts(subject="ann", top_k=10)
    chain = memory.history(live.id, limit=count + 1)
    assert len(chain) == count and {f.id for f in chain} == {f.id for f in put}
    assert [f.supersedes_id for f in chain] == [*(f.id for f in chain[1:]), None]
    assert [f.valid_to for f in chain] == [None, *(f.valid_from for f in chain[:-1])]
    assert len({f.valid_from for f in chain}) == count and len({f.created_at for f in chain}) == 1
    events = memory.list_events(limit=count + 1)
    assert [e.target_id for e in events] == [f.id for f in reversed(chain)]
    assert [e.action for e in events] == ["put", *["supersede"] * (count - 1)]


def test_writers_of_one_fact_make_one_chain(db, tenant_id):
    """Eight at once: exactly one live version, none lost, none twice."""
    one_chain(db, tenant_id, race(db, tenant_id, 8, 25))


@pytest.mark.soak("8,000 puts")
def test_sixteen_writers_of_one_fact_make_one_chain(app_url, tenant_id):
    """16 × 500 puts: one live version, 8,000 in the chain, 8,000 events.

    Each writer has a connection: SQLAlchemy's pool is not fair, so that of more writers than connections one starves.
    """
    with connect(app_url, pool_size=16) as db:
        one_chain(db, tenant_id, race(db, tenant_id, 16, 500))


def test_batches_that_meet_do_not_deadlock(db, tenant_id):
    """Each takes the locks of its facts in one order, whatever order they come in."""
    facts = [Fact("ann", "k", f"key-{n}", n) for n in range(300)]

    def write(n):
        turned = facts[n * 37 :] + facts[: n * 37]
        return len(db.tenant(tenant_id).memory(actor="me").put_facts(turned[::-1] if n % 2 else turned))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(write, range(8))) == [300] * 8
    memory = db.tenant(tenant_id).memory(actor="me")
    assert len(memory.search_facts(top_k=1_000)) == 300
    assert {len(memory.history(key=f"key-{n}")) for n in (0, 150, 299)} == {8}


def test_put_and_forget_race_without_a_second_live_version(db, tenant_id):
    """Whatever interleaves, every reader finds at most one, and the trail says what was done."""

    def work(n):
        store = db.tenant(tenant_id).memory(actor=str(n))
        done = 0
        for _ in range(15):
            if n % 2:
                store.put_fact(Fact("ann", "k", "key", n))
                done += 1
            else:
                done += store.delete(key="key")
        return done

    with ThreadPoolExecutor(6) as pool:
        done = sum(pool.map(work, range(6)))
    memory = db.tenant(tenant_id).memory(actor="me")
    assert len(memory.search_facts()) <= 1
    assert len(memory.list_events(limit=1_000)) == done


HOSTILE = [
    ("10 MB", "x" * 10_000_000, True),
    ("10 MB of a list", list(range(1_400_000)), True),
    ("deep", json.loads("[" * 190 + "]" * 190), True),
    ("too deep", json.loads("[" * 300 + "]" * 300), False),
    ("NaN", float("nan"), False),
    ("infinity", {"a": [float("-inf")]}, False),
    ("NUL", "a\0b", False),
    ("NUL in a key", {"a\0": 1}, False),
    ("surrogate", "\ud83d", False),
    ("surrogate in a key", {"\udc00": 1}, False),
    ("unicode keys", {"ключ": {"鍵": "🔑", "": "empty", "a.b": 1, "__proto__": None, "$gt": 1}}, True),
    ("numbers", [0, -0.5, 1e300, 2**70, 1e23, 5e-324, True, False, None], True),
    ("sql", "'; DROP SCHEMA pgrecall; -- %s %(tenant)s {0}", True),
    ("number keys", {1: 2}, False),
    ("bytes", b"x", False),
    ("null", None, True),
    ("empty", "", True),
]


@pytest.mark.parametrize(("value", "stored"), [pytest.param(v, s, id=n) for n, v, s in HOSTILE])
def test_a_value_is_stored_exactly_or_refused(db, tenant_id, value, stored):
    """Never changed on the way; an error names the fact."""
    memory = db.tenant(tenant_id).memory(actor="me")
    if stored:
        put = memory.put_fact(Fact("ann", "k", "key", value))
        got = memory.get(put.id)
        assert got.value == value and type(got.value) is type(value) and put.value == value
    else:
        with pytest.raises(InvalidInput, match="k/key"):
            memory.put_fact(Fact("ann", "k", "key", value))
        assert memory.search_facts() == [] == memory.list_events()


def test_the_longest_identity_fits_every_index(db, tenant_id):
    """2,000 bytes are stored and found; one more is refused."""
    memory = db.tenant((tenant_id + "t" * 200)[:200]).memory(actor="me")
    subject = "".join(chr(0x100 + (i * 7919) % 0x500) for i in range(480))
    path = ("é" * 100, "l" * 100)
    key = "k" * (2_000 - len(subject.encode()) - 4 - 300 - 16)
    put = memory.put_fact(Fact(subject, "kind", key, 1, namespace=path))
    assert memory.get_facts([put.fact_key]) == memory.search_facts(subject=subject, namespace=path[:1]) == [put]
    with pytest.raises(InvalidInput, match="2,001"):
        memory.put_fact(Fact(subject, "kind", key + "k", 1, namespace=path))


def test_labels_that_look_like_array_syntax_are_labels(db, tenant_id):
    """Braces, quotes, backslashes, commas, NULL: a namespace and key come back as they went in."""
    memory = db.tenant(tenant_id).memory(actor="me")
    paths = [("{a,b}",), ('q"uo"te',), ("back\\slash", "\\"), ("NULL",), (" lead", "trail "), ("a,b", "{}"), ("%", "_")]
    memory.put_facts([Fact(None, "k", "key", n, namespace=path) for n, path in enumerate(paths)])
    assert memory.list_namespaces() == sorted(paths)
    for n, path in enumerate(paths):
        assert [f.value for f in memory.search_facts(namespace=path)] == [n]
        assert memory.get_facts([FactKey(None, "k", "key", path)])[0].value == n


# Lifetimes


def test_reading_restarts_a_ttl_if_the_fact_or_the_caller_says_so(db, tenant_id):
    """`refresh_on_read` is the fact's wish, `refresh` the caller's; an end that was set outright stays."""
    memory = db.tenant(tenant_id).memory(actor="me")
    wishes, plain = memory.put_facts(
        [Fact("ann", "k", "wishes", 1, ttl=1_000, refresh_on_read=True), Fact("ann", "k", "plain", 2, ttl=1_000)]
    )
    fixed = memory.put_fact(Fact("ann", "k", "fixed", 3, expires_at=datetime.now(UTC) + timedelta(hours=1)))

    def end(fact):
        return memory.get(fact.id, refresh=False).expires_at

    memory.search_facts()
    assert end(wishes) > wishes.expires_at and (end(plain), end(fixed)) == (plain.expires_at, fixed.expires_at)
    before = end(wishes)
    memory.search_facts(refresh=False)
    assert end(wishes) == before
    memory.get_facts([plain.fact_key, fixed.fact_key], refresh=[True, True])
    assert end(plain) > plain.expires_at and end(fixed) == fixed.expires_at
    assert [e.action for e in memory.list_events()] == ["put"] * 3


def test_kinds_have_default_lifetimes(db, tenant_id):
    """A fact's own wins."""
    memory = db.tenant(tenant_id).memory(actor="me", default_ttl={"episode": timedelta(days=1)})
    episode, own, other = memory.put_facts(
        [Fact("a", "episode", "1", 1), Fact("a", "episode", "2", 1, ttl=5), Fact("a", "trait", "3", 1)]
    )
    assert (episode.ttl, own.ttl, other.ttl, other.expires_at) == (86_400.0, 5.0, None, None)


# Models


def test_texts_are_embedded_and_found_by_meaning(memory):
    """The store's function embeds facts and questions, in both modes; several fields each by itself."""
    memory.put_facts(
        [
            Fact("ann", "k", "zoo", "zzz zoo"),
            Fact("ann", "k", "map", {"a": 1}, embed_texts={"title": "mmm", "body": "aa"}),
        ]
    )
    memory.put_fact(Fact("ann", "k", "bare", "zzz", embed_texts={}))
    assert [f.key for f in memory.search_facts(text="zz", mode="dense")] == ["zoo", "map"]
    assert memory.search_facts(text="mm", mode="dense", top_k=1)[0].key == "map"
    assert asyncio.run(memory.asearch_facts(text="aaa", mode="dense", top_k=1))[0].key == "map"
    assert memory.search_facts(text="zzz")[0].key == "zoo"
    assert [f.key for f in memory.search_facts(text="zzz", mode="sparse")] == ["bare", "zoo"]


def test_a_model_that_changed_under_its_name_is_noticed(db, tenant_id, memory):
    """The fingerprint is kept with the first vectors, and compared by the next store."""
    memory.put_fact(Fact("ann", "k", "one", "text"))
    other = db.tenant(tenant_id).memory(
        actor="me", space=SPACE, embed=lambda texts: [[float(n) for n in range(26)] for _ in texts]
    )
    with pytest.raises(FingerprintMismatch, match="memory of tenant"):
        other.put_fact(Fact("ann", "k", "two", "text"))
    with pytest.raises(FingerprintMismatch):
        other.search_facts(text="text")
    assert len(memory.search_facts()) == 1


def test_a_vector_without_a_space_is_refused(db, tenant_id):
    """Nothing says what made it; where the memory has a space, it is that one."""
    bare = db.tenant(tenant_id).memory(actor="me")
    with pytest.raises(InvalidInput, match="space"):
        bare.put_fact(Fact("ann", "k", "key", 1, embedding=[1.0] * 26))
    db.tenant(tenant_id).memory(actor="me", space=SPACE).put_fact(Fact("ann", "k", "key", 1, embedding=[1.0] * 26))
    assert bare.search_facts(vector=[1.0] * 26)[0].score == pytest.approx(1.0, abs=1e-3)


def test_the_language_of_texts_is_the_first_facts(db, tenant_id):
    """English stems; another one is refused later."""
    english = db.tenant(tenant_id).memory(actor="me", text_config="english")
    english.put_fact(Fact("ann", "k", "key", "She runs marathons"))
    assert len(db.tenant(tenant_id).memory(actor="me").search_facts(text="running")) == 1
    with pytest.raises(InvalidInput, match="english"):
        db.tenant(tenant_id).memory(actor="me", text_config="german").put_fact(Fact("ann", "k", "x", 1))
    with pytest.raises(InvalidInput, match="klingon"):
        db.tenant(f"{tenant_id}-2").memory(actor="me", text_config="klingon").put_fact(Fact("ann", "k", "x", 1))


# Rights


def test_the_application_can_append_to_the_trail_and_not_alter_it(app_url, db, tenant_id):
    """Its role may neither update nor delete events; maintenance may, one tenant's at a time."""
    memory = db.tenant(tenant_id).memory(actor="me")
    memory.put_fact(Fact("ann", "k", "key", 1))
    gate = db.backend.engines.sync_gate()
    for statement in (
        "UPDATE pgrecall.memory_events SET actor = 'x' WHERE tenant_id = %(tenant)s",
        "DELETE FROM pgrecall.memory_events WHERE tenant_id = %(tenant)s",
    ):
        with (
            pytest.raises(PgRecallError, match="permission denied"),
            gate.transaction(db.backend.scope(gate, tenant_id)) as tx,
        ):
            tx.count(statement, {"tenant": tenant_id})
    maintenance = db.backend.maintenance_gate()
    with maintenance.transaction(db.backend.maintenance_scope(maintenance)) as tx:
        assert tx.rows("SELECT 1 FROM pgrecall.memory_events LIMIT 1", {}) == []
    assert len(memory.list_events()) == 1


def test_writers_of_deleted_and_unknown_tenants_are_refused(db, app_url, tenant_id):
    """As for chunks."""
    memory = db.tenant(tenant_id).memory(actor="me")
    memory.put_fact(Fact("ann", "k", "key", 1))
    db.delete_tenant(tenant_id)
    with pytest.raises(TenantErased):
        memory.put_fact(Fact("ann", "k", "key", 2))
    with connect(app_url, require_known_tenants=True) as strict, pytest.raises(UnknownTenant):
        strict.tenant(f"{tenant_id}-new").memory(actor="me").put_fact(Fact("ann", "k", "key", 1))


@pytest.mark.parametrize(
    "call",
    [
        lambda t: t.memory(actor=""),
        lambda t: t.memory(actor=None),
        lambda t: t.memory(actor="a", keep_versions=0),
        lambda t: t.memory(actor="a", grace=-1),
        lambda t: t.memory(actor="a", default_ttl={"k": "soon"}),
        lambda t: t.memory(actor="a").search_facts(mode="meaning"),
        lambda t: t.memory(actor="a").search_facts(mode="sparse"),
        lambda t: t.memory(actor="a").search_facts(order_by="id"),
        lambda t: t.memory(actor="a").search_facts(top_k=-1),
        lambda t: t.memory(actor="a").search_facts(filters={"a": 1}),
        lambda t: t.memory(actor="a").search_facts(text=3),
        lambda t: t.memory(actor="a").list_events(action="explode"),
        lambda t: t.memory(actor="a").list_events(since="monday"),
        lambda t: t.memory(actor="a").get_facts([FactKey("a", "b", "c")], refresh=[]),
        lambda t: t.memory(actor="a").put_facts("abc"),
        lambda t: t.memory(actor="a").put_fact(Fact("a", "b", "c", 1), reason=""),
        lambda t: t.erase_subject("", actor="a"),
        lambda t: t.erase_subject("ann", actor=""),
    ],
)
def test_wrong_arguments_are_refused_with_what_was_expected(db, tenant_id, call):
    """Before any statement is sent."""
    with pytest.raises(InvalidInput, match=r"expected|empty|nothing to search by|one for each"):
        call(db.tenant(tenant_id))


# Plans


def plan(admin_url, tenant_id, statement, params):
    with psycopg.connect(as_dsn(admin_url), autocommit=True, prepare_threshold=None) as connection:
        connection.execute("SET search_path = pg_catalog, public")
        rows = connection.execute(f"EXPLAIN {statement}", {"tenant": tenant_id, **params}).fetchall()
    return "\n".join(line for (line,) in rows)


def test_facts_are_found_by_index_on_tables_that_were_never_analyzed(new_database):
    """By subject, by namespace, by identity: no scan of the table, none of the tenant."""
    from pgrecall.operations.memory.packing import identities
    from pgrecall.statements import fact_reads
    from pgrecall.statements import facts as sql

    url = new_database(migrated=True)
    whole = identities([FactKey("ann", "k", "key")])
    shown = plan(url, "t", sql.HEADS, {"keep": None, **whole})
    assert "Seq Scan" not in shown and shown.count("memory_facts_live_key") == 1
    assert "memory_facts_versions_idx" in shown
    assert "memory_facts_live_key" in plan(url, "t", fact_reads.BY_KEYS, whole)
    by_subject = fact_reads.listing(fact_reads.Facts.of(None, by_subject=True), "recency")
    page = {"limit": 10, "offset": 0}
    assert "memory_facts_live_key" in plan(url, "t", by_subject, {"subject": "ann", **page})
    below = fact_reads.listing(fact_reads.Facts.of(F.a == 1, by_namespace=True), "recency")
    values = {"prefix": ["a"], "beyond": ["a\x01"], **fact_reads.filter_values(fact_reads.Facts.of(F.a == 1)), **page}
    shown = plan(url, "t", below, values)
    assert "memory_facts_namespace_idx" in shown and "namespace >= '{a}'" in shown
    history = plan(url, "t", fact_reads.HISTORY, {**whole, **page})
    assert "memory_facts_versions_idx" in history
