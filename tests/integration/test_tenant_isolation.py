"""Two defences keep tenants apart, row-level security and each statement's own predicate; each holds alone.

Every public method is called as tenant B with names of tenant A, and with names that nobody has: the outcomes
are the same, and nothing of A changes. A method without a case here fails the suite.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
import sqlalchemy as sa
from psycopg.pq import TransactionStatus
from sqlalchemy.ext.asyncio import create_async_engine

import pgrecall
from conftest import as_dsn
from contract.base import AsyncFace
from pgrecall import (
    Chunk,
    Database,
    DocstoreEntry,
    Document,
    EmbedSpace,
    F,
    Fact,
    FactKey,
    IndexRecords,
    PgRecallError,
    PostgresChat,
    PostgresDocstore,
    PostgresMemoryStore,
    PostgresRuns,
    PostgresVectorStore,
    Tenant,
)
from pgrecall.admin import migrate
from pgrecall.evaluation import EvalQuery, EvalSet, Evaluations, evaluate
from pgrecall.schema import TENANT_TABLES
from support import models

SPACE = EmbedSpace("test", "eight", 8)
ONES = [1.0] * 8
TABLES = [table.name for table in TENANT_TABLES]


@dataclass(frozen=True)
class Names:
    """What a caller may name: all of it tenant A's, or nobody's."""

    prefix: str

    @property
    def chunk(self) -> str:
        return f"{self.prefix}-chunk"

    @property
    def doc(self) -> str:
        return f"{self.prefix}-doc"

    @property
    def collection(self) -> str:
        return f"{self.prefix}-collection"

    @property
    def session(self) -> str:
        return f"{self.prefix}-session"

    @property
    def run(self) -> str:
        return f"{self.prefix}-run"

    @property
    def message(self) -> str:
        return f"{self.prefix}-message"

    @property
    def subject(self) -> str:
        return f"{self.prefix}-subject"

    @property
    def fact(self) -> str:
        return f"{self.prefix}-fact"

    @property
    def key(self) -> str:
        return f"{self.prefix}-key"

    @property
    def fact_key(self) -> FactKey:
        return FactKey(self.subject, "kind", self.key, (self.key,))


OURS, NOBODYS = Names("aaa"), Names("xxx")


def in_a_block(tenant, names):
    with tenant.atomic():
        done = tenant.vectors(names.collection, SPACE).upsert([Chunk(names.chunk, "B's", ONES)])
        return [done, [(c.name, c.chunks) for c in tenant.collections()]]


STORE: dict[str, Callable] = {
    "upsert": lambda s, n: s.upsert([Chunk(n.chunk, "B's", ONES, n.doc), Chunk("new", "B's", ONES)]),
    "bulk_load": lambda s, n: s.bulk_load(
        iter([Chunk(n.chunk, "B's", ONES, n.doc), Chunk("new", "B's", ONES)]), documents=[Document(n.doc)]
    ),
    "replace_document": lambda s, n: s.replace_document(Document(n.doc), [Chunk(n.chunk, "B's", ONES)]),
    "query": lambda s, n: [
        s.query(ONES, 10),
        s.query(ONES, 10, F.mine == n.chunk),
        s.query(ONES, 10, ids=[n.chunk]),
        s.query(ONES, 10, doc_ids=[n.doc]),
        s.query(ONES, 10, exact=True),
        s.query(ONES, 10, ef_search=40),
        s.query(ONES, 10, text="b secrets"),
        (told := s.query(text="b secrets", explain=True)),
        (told.explanation.rows, told.explanation.candidates),
    ],
    "for_run": lambda s, n: s.for_run(n.run).query(ONES, 10),
    "query_mmr": lambda s, n: [s.query_mmr(ONES, 5), s.query_mmr(ONES, 5, ids=[n.chunk])],
    "get": lambda s, n: s.get([n.chunk, "own"], with_embeddings=True),
    "list": lambda s, n: [s.list(with_embeddings=True), s.list(ids=[n.chunk]), s.list(doc_ids=[n.doc])],
    "documents": lambda s, n: [s.documents(), s.documents([n.doc])],
    "count": lambda s, n: [s.count(), s.count(F.mine == n.chunk), s.count(doc_ids=[n.doc])],
    "set_metadata": lambda s, n: [
        s.set_metadata({"x": 1}, ids=[n.chunk]),
        s.set_metadata({"x": 1}, doc_ids=[n.doc]),
        s.set_metadata({"x": 1}, filters=F.mine == n.chunk, replace=True),
    ],
    "delete": lambda s, n: [s.delete([n.chunk]), s.delete(filters=F.mine == n.chunk)],
    "delete_by_doc_id": lambda s, n: s.delete_by_doc_id(n.doc),
    "optimize": lambda s, n: s.optimize(),
    "clear": lambda s, n: s.clear(),
    "drop": lambda s, n: s.drop(),
}
MESSAGE = pgrecall.Message("user", "B's")


def told(messages):
    """What of messages does not differ from call to call."""
    return [(m.text, m.position, m.role, m.status) for m in messages if m]


CHAT: dict[str, Callable] = {
    "append": lambda c, n: [told(c.append([MESSAGE, replace(MESSAGE, id=n.message)])), told(c.messages())],
    "replace": lambda c, n: told(c.replace([replace(MESSAGE, id=n.message)])),
    "replace_message": lambda c, n: [
        told([c.replace_message(n.message, MESSAGE)]),
        told([c.replace_message(0, MESSAGE)]),
    ],
    "messages": lambda c, n: [
        told(c.messages()),
        told(c.messages(3, status=None)),
        told(c.messages(after=-1, limit=9)),
    ],
    "get": lambda c, n: told([c.get(n.message)]),
    "count": lambda c, n: [c.count(), c.count(None)],
    "window": lambda c, n: [told(c.window(9)), told(c.window(max_tokens=9, count_tokens=lambda m: 1))],
    "search": lambda c, n: [told(h.message for h in c.search("secret own"))],
    "delete": lambda c, n: [c.delete([n.message]), c.delete(positions=[1, 2])],
    "pop": lambda c, n: told([c.pop(), c.pop(1)]),
    "delete_oldest": lambda c, n: told(c.delete_oldest(2)),
    "archive_oldest": lambda c, n: told(c.archive_oldest(2)),
    "clear": lambda c, n: [c.clear("active"), c.clear()],
    "drop": lambda c, n: c.drop(),
    "info": lambda c, n: getattr(c.info(), "messages", None),
    "set_metadata": lambda c, n: [c.set_metadata({"x": 1}), c.set_metadata({"x": 2}, replace=True)],
    "set_ttl": lambda c, n: c.set_ttl(timedelta(days=1)),
}
DOCSTORE: dict[str, Callable] = {
    "put": lambda d, n: [d.put([DocstoreEntry(n.doc, "B's")]), d.put([DocstoreEntry("new", ref_doc_id=n.doc)])],
    "get": lambda d, n: d.get([n.doc, "own-doc"]),
    "list": lambda d, n: d.list(),
    "hashes": lambda d, n: [d.hashes(), d.hashes([n.doc])],
    "references": lambda d, n: [d.references(), d.references([n.doc])],
    "delete": lambda d, n: d.delete([n.doc]),
    "delete_document": lambda d, n: d.delete_document(n.doc),
}
RUN = pgrecall.RunState("", {"of": "B"}, state_version=None)


def states(runs):
    """What of runs does not differ from call to call."""
    return [(r.state, r.state_version, r.status, r.subject) for r in runs if r]


RUNS: dict[str, Callable] = {
    "put": lambda r, n: states([r.put(replace(RUN, run_id=n.run)), r.put(replace(RUN, run_id=n.run, state_version=1))]),
    "get": lambda r, n: states([r.get(n.run)]),
    "list": lambda r, n: [states(r.list()), states(r.list(F.mine == n.run)), states(r.list(subject=n.prefix))],
    "count": lambda r, n: [r.count(), r.count(state=F.of == "A's secret")],
    "append_event": lambda r, n: r.append_event(n.run, "k", {}).seq,
    "events": lambda r, n: [e.data for e in r.events(n.run)],
    "tail": lambda r, n: [e.data for e in r.tail(n.run, timeout=0)],
    "record_evidence": lambda r, n: [
        r.record_evidence(n.run, "q", [], collection=n.collection),
        r.evidence(n.run)[0].space,
    ],
    "evidence": lambda r, n: [(e.collection, e.chunks) for e in r.evidence(n.run)],
    "delete": lambda r, n: r.delete(n.run),
    "prune": lambda r, n: [r.prune(timedelta(days=1)), r.prune(keep_latest=0)],
}


def known(found):
    """What facts say, without the ids and times that differ by themselves."""
    if isinstance(found, list):
        return [known(fact) for fact in found]
    return found and (found.subject, found.key, found.value, found.supersedes_id, found.score)


MEMORY: dict[str, Callable] = {
    "put_fact": lambda m, n: known(m.put_fact(Fact(n.subject, "kind", n.key, "B's", namespace=(n.key,)))),
    "put_facts": lambda m, n: known(m.put_facts([Fact(n.subject, "kind", n.key, "B's", embedding=ONES)])),
    "get": lambda m, n: known(m.get(n.fact)),
    "get_facts": lambda m, n: known(m.get_facts([n.fact_key, FactKey("own", "kind", "own")], refresh=True)),
    "search_facts": lambda m, n: [
        known(m.search_facts()),
        known(m.search_facts(subject=n.subject, kind="kind", key=n.key)),
        known(m.search_facts(filters=F.mine == n.key)),
        known(m.search_facts(namespace=(n.key,))),
        known(m.search_facts(text="A's secret")),
        known(m.search_facts(query_vector=ONES)),
        known(m.search_facts(text="secret", query_vector=ONES)),
        known(m.search_facts(as_of=datetime.now(UTC))),
    ],
    "history": lambda m, n: [known(m.history(n.fact)), known(m.history(key=n.key))],
    "list_namespaces": lambda m, n: m.list_namespaces(prefixes=[(n.key,)]) + m.list_namespaces(),
    "delete": lambda m, n: [m.delete(n.fact), m.delete(key=n.key), m.delete(key=n.key, subject=n.subject)],
    "delete_facts": lambda m, n: m.delete_facts([n.fact_key]),
    "restore": lambda m, n: m.restore(f"{n.fact}-forgotten"),
    "erase": lambda m, n: [m.erase(n.fact), m.erase(key=n.key), m.erase(f"{n.fact}-forgotten")],
    "events": lambda m, n: [m.events(subject=n.subject), m.events(target_id=n.fact), len(m.events())],
}
RECORDS: dict[str, Callable] = {
    "time": lambda r, n: r.time() > 0,
    "update": lambda r, n: r.update([n.chunk, "new"], group_ids=[n.doc, None]),
    "exists": lambda r, n: r.exists([n.chunk, "own"]),
    "list": lambda r, n: [r.list(), r.list(group_ids=[n.doc]), r.list(before=2**40, limit=5)],
    "delete": lambda r, n: r.delete([n.chunk]),
}
TENANT: dict[str, Callable] = {
    "runs": lambda t, n: t.runs().tenant_id == t.tenant_id,
    "chat": lambda t, n: t.chat(n.session).session_id,
    "chats": lambda t, n: [[(i.session_id, i.messages) for i in found] for found in (t.chats(), t.chats(n.prefix))],
    "search_chats": lambda t, n: told(
        h.message for s in (None, n.prefix) for h in t.search_chats("secret own", subject=s)
    ),
    "vectors": lambda t, n: t.vectors(n.collection).collection,
    "index_records": lambda t, n: t.index_records(n.collection).collection,
    "set_text_config": lambda t, n: t.set_text_config(n.collection, "simple"),
    "reembed": lambda t, n: t.reembed(n.collection, models.NEW, models.new),
    "cancel_reembed": lambda t, n: t.cancel_reembed(n.collection),
    "collections": lambda t, n: [c.name for c in t.collections()],
    "collection": lambda t, n: getattr(t.collection(n.collection), "chunks", None),
    "index_key": lambda t, n: [t.index_key(n.collection, "mine"), t.index_key(n.collection, "of", "number")],
    "unindex_key": lambda t, n: t.unindex_key(n.collection, "mine"),
    "tune": lambda t, n: t.tune(n.collection),
    "set_ef_search": lambda t, n: t.set_ef_search(n.collection, 200),
    "drop_collection": lambda t, n: t.drop_collection(n.collection),
    "docstore": lambda t, n: t.docstore(n.collection).collection,
    "atomic": lambda t, n: in_a_block(t, n),
    "memory": lambda t, n: t.memory(actor=n.subject).actor,
    "erase_subject": lambda t, n: t.erase_subject(n.subject, actor="b"),
    "reopen_subject": lambda t, n: t.reopen_subject(n.subject, actor="b"),
    "export_subject": lambda t, n: list(t.export_subject(n.subject))[1:],
}
# Of the database's methods these take a tenant's name, and so are called with B's own.
DATABASE: dict[str, Callable] = {
    "create_tenant": lambda d, b: [d.create_tenant(b), d.create_tenant(b)],
    "tenant_info": lambda d, b: getattr(d.tenant_info(b), "tenant_id", None),
    "delete_tenant": lambda d, b: d.delete_tenant(b),
}
#: No tenant's rows: handles, the global registry of spaces, lifetime; and what asks for the maintenance login.
DATABASE_OTHERS = {
    "tenant", "spaces", "aspaces", "add_space", "aadd_space", "close", "aclose", "tenants", "atenants",
    "maintain", "amaintain", "sweep", "asweep", "on_erase",
}  # fmt: skip
NOT_TWINNED = {
    "vectors",
    "docstore",
    "chat",
    "runs",
    "index_records",
    "atomic",
    "for_run",
    "tail",
    "memory",
    "export_subject",
}
#: What a verb is called on, and its cases.
HANDLES: dict[str, tuple[Callable, dict[str, Callable]]] = {
    "store": (lambda t, n: t.vectors(n.collection, SPACE), STORE),
    "records": (lambda t, n: t.index_records(n.collection), RECORDS),
    "chat": (lambda t, n: t.chat(n.session), CHAT),
    "runs": (lambda t, n: t.runs(), RUNS),
    "memory": (lambda t, n: t.memory(actor="b", space=SPACE), MEMORY),
    "docstore": (lambda t, n: t.docstore(n.collection), DOCSTORE),
    "tenant": (lambda t, n: t, TENANT),
}


@pytest.mark.parametrize(
    ("kind", "cases", "others"),
    [
        (PostgresVectorStore, STORE, set()),
        (IndexRecords, RECORDS, set()),
        (PostgresChat, CHAT, set()),
        (PostgresRuns, RUNS, {"atail"}),
        (PostgresMemoryStore, MEMORY, set()),
        (PostgresDocstore, DOCSTORE, set()),
        (Tenant, TENANT, {"aexport_subject"}),
        (Database, DATABASE, DATABASE_OTHERS),
    ],
    ids=["store", "records", "chat", "runs", "memory", "docstore", "tenant", "database"],
)
def test_every_public_method_has_a_case(kind, cases, others):
    """A method that is added without a case below fails here."""
    public = {n for n in dir(kind) if not n.startswith("_") and not isinstance(getattr(kind, n), property)}
    assert public == set(cases) | {f"a{name}" for name in set(cases) - NOT_TWINNED} | others


@pytest.fixture(scope="module")
def without_policies(_databases):
    """A database of which the owner has switched row-level security off."""
    url = _databases()
    migrate.upgrade(url)
    with psycopg.connect(as_dsn(url), autocommit=True) as connection:
        for table in TABLES:
            connection.execute(f"ALTER TABLE pgrecall.{table} NO FORCE ROW LEVEL SECURITY")
            connection.execute(f"ALTER TABLE pgrecall.{table} DISABLE ROW LEVEL SECURITY")
    return url


@pytest.fixture
def without_predicates(monkeypatch):
    """Statements lose their own `tenant_id = …` on the way to the driver; returns how many did so far."""
    removed = []

    def stripped(execute):
        def execute_stripped(self, query, params=None, **options):
            if isinstance(query, str):
                query, times = re.subn(
                    r"[\w.]*\btenant_id = %\(tenant\)s(::\w+)?", "%(tenant)s::text IS NOT NULL", query
                )
                removed.extend([query] * bool(times))
            return execute(self, query, params, **options)

        return execute_stripped

    for kind in (psycopg.Connection, psycopg.AsyncConnection):
        monkeypatch.setattr(kind, "execute", stripped(kind.execute))
    return removed


@pytest.fixture(params=["policies alone", "predicates alone"])
def defended(request, app_url, admin_url, without_policies):
    """A database with one of the two defences, and a superuser's connection to look from outside."""
    url, admin = (app_url, admin_url) if request.param == "policies alone" else (without_policies,) * 2
    removed = request.getfixturevalue("without_predicates") if request.param == "policies alone" else None
    with pgrecall.connect(url) as db, psycopg.connect(as_dsn(admin), autocommit=True) as outside:
        db.tenant("nobody").collections()
        assert removed is None or removed
        yield db, outside


@pytest.fixture(scope="module")
def filled(app_url, admin_url, without_policies):
    """Tenant A, filled once in each database: whatever the tests do as B, it must stay as it is."""
    tenant = f"isolation-A-{os.getpid()}"
    for url, admin in ((app_url, admin_url), (without_policies,) * 2):
        with pgrecall.connect(url) as db, psycopg.connect(as_dsn(admin), autocommit=True) as outside:
            fill(db, tenant, OURS, "A's secret")
            remember(db, outside, tenant, OURS, "A's secret")
    return tenant


def everything_of(outside, tenant):
    """All rows of a tenant, from outside."""
    return {
        table: outside.execute(
            f"SELECT t::text FROM pgrecall.{table} t WHERE tenant_id = %s ORDER BY 1", [tenant]
        ).fetchall()
        for table in TABLES
    }


def fill(db, tenant, names, text):
    chunk = Chunk(names.chunk, text, ONES, names.doc, 1, {"mine": names.chunk})
    document = Document(names.doc, f"source of {text}", f"uri of {text}", metadata={"of": text})
    db.tenant(tenant).vectors(names.collection, SPACE, text_config="english").upsert([chunk], documents=[document])
    db.tenant(tenant).docstore(names.collection).put(
        [
            DocstoreEntry(names.doc, text, metadata={"mine": text}, payload={"text": text}),
            DocstoreEntry("part", text, names.doc),
        ]
    )
    messages = [pgrecall.Message("user", f"{text} {n}", id=names.message if n else None) for n in range(3)]
    db.tenant(tenant).chat(names.session, names.prefix).append(messages)
    runs = db.tenant(tenant).runs()
    runs.put(pgrecall.RunState(names.run, {"of": text}, subject=names.prefix, metadata={"mine": names.run}))
    runs.append_event(names.run, "k", {"of": text})
    store = db.tenant(tenant).vectors(names.collection, SPACE)
    runs.record_evidence(names.run, "q", store.query(ONES), collection=names.collection)
    db.tenant(tenant).index_key(names.collection, "mine")
    db.tenant(tenant).index_records(names.collection).update([names.chunk], group_ids=[names.doc])
    kept = Evaluations(db.tenant(tenant))
    judged = EvalSet(names.collection, (EvalQuery("q", text, {names.chunk: 1}),))
    evaluate(lambda _question: [names.chunk], judged, store=kept, run_id=names.run)
    kept.save_records("datasets", names.collection, [{"text": text}])


def remember(db, outside, tenant, names, text):
    """A fact, one with a vector, and a forgotten one; under ids that callers can name."""
    memory = db.tenant(tenant).memory(actor="a", space=SPACE, embed=None)
    named = memory.put_fact(Fact(names.subject, "kind", names.key, {"mine": names.key}, text, namespace=(names.key,)))
    forgotten = memory.put_fact(Fact(names.subject, "kind", "forgotten", text))
    memory.delete(forgotten.id)
    for fact, name in ((named, names.fact), (forgotten, f"{names.fact}-forgotten")):
        for table, column in (("memory_facts", "id"), ("memory_events", "target_id")):
            update = f"UPDATE pgrecall.{table} SET {column} = %s WHERE tenant_id = %s AND {column} = %s"
            outside.execute(update, [name, tenant, fact.id])
    memory.put_fact(Fact(names.subject, "kind", "near", text, embedding=ONES))


def outcome(call, names, tenant):
    """What a caller can learn from a call, with the names it used taken out."""
    try:
        told = repr(call())
    except PgRecallError as exc:
        told = f"{type(exc).__name__}: {exc}"
    return told.replace(names.prefix, "NAME").replace(tenant, "TENANT")


# Both faces are one body: of chats and runs each is called once with what B has too, and once without.
CALLS = [
    pytest.param(on, verb, shared, face, id=f"{on}-{verb}-{'B has such' if shared else 'B has none'}-{face}")
    for on, (_, cases) in HANDLES.items()
    for verb in cases
    for shared in (True, False)
    for face in ("sync", "async")
    if on in ("store", "tenant") or shared == (face == "sync")
]


@pytest.mark.parametrize(("on", "verb", "shared", "face"), CALLS)
def test_names_of_another_tenant_are_names_of_nothing(filled, defended, tenant_id, on, verb, shared, face):
    """As tenant B, what A has can't be told from what nobody has, and nothing of A is changed."""
    db, outside = defended
    before = everything_of(outside, filled)
    outcomes = []
    with asyncio.Runner() as runner:
        for names in (OURS, NOBODYS):
            tenant = f"{tenant_id}-B-{names.prefix}"
            if shared:
                own = Chunk("own", "B's own", ONES, "own-doc", metadata={"mine": "own"})
                db.tenant(tenant).vectors(names.collection, SPACE, text_config="english").upsert([own])
                db.tenant(tenant).chat(names.session).append([pgrecall.Message("user", "B's own")] * 2)
                db.tenant(tenant).runs().put(replace(RUN, run_id=names.run))
                own = Fact("own", "kind", "own", {"mine": "own"}, "B's own", ttl=1_000, embedding=ONES)
                db.tenant(tenant).memory(actor="b", space=SPACE).put_fact(own)
            make, cases = HANDLES[on]
            handle = make(db.tenant(tenant), names)
            if face == "async" and verb not in NOT_TWINNED:
                handle = AsyncFace(handle, runner)
            case = cases[verb]
            outcomes.append(outcome(lambda case=case, h=handle, n=names: case(h, n), names, tenant))
        db.close()  # the async pool's connections, before their loop
    assert outcomes[0] == outcomes[1]
    assert "secret" not in outcomes[0]
    assert not outcomes[0].startswith(("DatabaseError", "Conflict"))  # which would be the same for any names
    assert everything_of(outside, filled) == before
    assert all(rows for table, rows in before.items() if table != "erased_subjects")


@pytest.mark.parametrize("verb", DATABASE)
def test_a_database_s_methods_touch_the_tenant_they_name(filled, defended, tenant_id, verb):
    """Creating, asking for and deleting B says and changes nothing of A."""
    db, outside = defended
    before, tenant = everything_of(outside, filled), f"{tenant_id}-B"
    found = outcome(lambda: DATABASE[verb](db, tenant), OURS, tenant)
    assert found in ("[True, False]", "None") or (verb == "delete_tenant" and not re.search(r": [1-9]", found))
    assert everything_of(outside, filled) == before


def test_the_tests_above_can_fail(request, without_policies, tenant_id):
    """With both defences gone a tenant does see another's rows: it is they that hold."""
    with pgrecall.connect(without_policies) as db:
        fill(db, tenant_id, OURS, "A's secret")
        request.getfixturevalue("without_predicates")
        found = db.tenant(f"{tenant_id}-B").vectors(OURS.collection, SPACE).list(limit=1_000)
        assert "A's secret" in {chunk.text for chunk in found}


def test_one_id_in_two_tenants_is_two_chunks(defended, tenant_id):
    """Each reads its own text; changing or deleting one leaves the other."""
    db, _ = defended
    first, second = (db.tenant(f"{tenant_id}-{n}").vectors(OURS.collection, SPACE) for n in (1, 2))
    fill(db, f"{tenant_id}-1", OURS, "first")
    fill(db, f"{tenant_id}-2", OURS, "second")
    assert [s.query(ONES)[0].text for s in (first, second)] == ["first", "second"]
    assert [s.get([OURS.chunk])[0].text for s in (first, second)] == ["first", "second"]
    assert second.delete([OURS.chunk]).chunks == 1
    assert (first.count(), first.documents()[0].source) == (1, "source of first")


# Names that would like to be SQL

HOSTILE = [
    "o'brien", "''", 'quo"te', "back\\slash", "\\'; RESET ROLE; --", "'; SET ROLE pgrecall_maintenance; --",
    "x'; COMMIT; DROP SCHEMA pgrecall CASCADE; --", "100%", "%s %(tenant)s %%", ":tenant :name", "{} {0}", "$1 $$ $a$",
    "E'\\x41'", "a\nb\r\tc", " ", " lead", "trail ",
    "A", "a", "é", "e\u0301", "😀", "\u202eabc", "null", "DEFAULT", "*", "-",
]  # fmt: skip


def test_no_name_can_be_more_than_a_name(db, tenant_id):
    """Quotes, backslashes, semicolons, placeholders, unicode: each is a tenant of its own, and exactly that."""
    names = [name + tenant_id for name in HOSTILE]
    for name in names:
        db.tenant(name).vectors(name, SPACE).upsert([Chunk(name, f"text of {name}", ONES, name)])
    for name in names:
        store = db.tenant(name).vectors(name, SPACE)
        assert [(h.chunk_id, h.text, h.doc_id) for h in store.query(ONES)] == [(name, f"text of {name}", name)]
        assert [c.name for c in db.tenant(name).collections()] == [name]
        assert db.tenant_info(name).tenant_id == name
        gate = db._engines.sync_gate()
        with gate.transaction(db._scope(gate, name)) as tx:
            set_to = tx.rows("SELECT current_setting('pgrecall.tenant_id'), current_user::text", {})
        assert set_to == [(name, "pgrecall_app")]
    assert db.delete_tenant(names[0])["chunks"] == 1
    assert all(db.tenant(name).vectors(name, SPACE).count() == 1 for name in names[1:])


# What a call leaves behind, and what it can't say

LEFT = "SELECT coalesce(current_setting('pgrecall.tenant_id', true), ''), current_user = session_user"


def calls(store):
    """Calls that end well, in Python and in SQL; each may raise."""
    return [
        lambda: store.upsert([Chunk("1", "t", ONES)]),
        lambda: store.query(ONES),
        lambda: store.get(["1"]),
        lambda: store.delete(["1"]),
        lambda: store.upsert([Chunk("1", "t", [1.0])]),
        lambda: store.upsert(iter([Chunk("1", "t", ONES), None])),
        lambda: store.upsert([Chunk("2", "t", ONES)], progress=lambda done, total: 1 / 0),
        lambda: store.drop(),
        lambda: store.drop(),
    ]


def test_a_pooled_connection_keeps_neither_tenant_nor_role(app_url, tenant_id):
    """After each call, whether it succeeded or failed, the one connection of the pool is as it was made."""
    engine = sa.create_engine(app_url, pool_size=1, max_overflow=0)
    async_engine = create_async_engine(app_url, pool_size=1, max_overflow=0)

    def sync_left():
        with engine.connect() as connection:
            idle = connection.connection.driver_connection.info.transaction_status
            return (*connection.exec_driver_sql(LEFT).one(), idle)

    async def async_left():
        async with async_engine.connect() as connection:
            idle = (await connection.get_raw_connection()).driver_connection.info.transaction_status
            return (*(await connection.exec_driver_sql(LEFT)).one(), idle)

    with asyncio.Runner() as runner, pgrecall.connect(engine=engine, async_engine=async_engine) as db:
        store = db.tenant(tenant_id).vectors("c", SPACE)
        for face, left in ((store, sync_left), (AsyncFace(store, runner), lambda: runner.run(async_left()))):
            failed = 0
            for call in calls(face):
                try:
                    call()
                except (PgRecallError, ZeroDivisionError):
                    failed += 1
                assert left() == ("", True, TransactionStatus.IDLE)
            assert failed == 4
        runner.run(async_engine.dispose())
    engine.dispose()


def test_no_call_can_choose_another_tenant(db, tenant_id):
    """No method of a store or tenant takes a tenant, or keywords that it does not name."""
    tenant = db.tenant(tenant_id)
    for handle in (tenant, tenant.vectors("c", SPACE), tenant.chat("s"), tenant.runs(), tenant.memory(actor="a")):
        for name in [n for n in dir(handle) if not n.startswith("_") and callable(getattr(handle, n))]:
            parameters = inspect.signature(getattr(handle, name)).parameters.values()
            assert not [p for p in parameters if "tenant" in p.name or p.kind is p.VAR_KEYWORD]
    for keyword in ("tenant", "tenant_id"):
        with pytest.raises(TypeError, match="unexpected keyword"):
            tenant.vectors("c", SPACE).query(ONES, **{keyword: "other"})
