"""Two defences keep tenants apart, row-level security and each statement's own predicate; each holds alone.

Every public method is called as tenant B with names of tenant A, and with names that nobody has: the outcomes
are the same, and nothing of A changes. A method without a case in `support/isolation.py` fails the suite.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
from dataclasses import replace

import psycopg
import pytest

import pgrecall
from conftest import as_dsn
from pgrecall import (
    Chunk,
    Database,
    Fact,
    IndexRecords,
    PgRecallError,
    PostgresChat,
    PostgresDocstore,
    PostgresMemoryStore,
    PostgresRuns,
    PostgresVectorStore,
    Tenant,
)
from pgrecall.schema import TENANT_TABLES
from pgrecall.testing.contract.base import AsyncFace
from support.isolation import (
    CHAT,
    DATABASE,
    DATABASE_OTHERS,
    DOCSTORE,
    HANDLES,
    MEMORY,
    NOBODYS,
    NOT_TWINNED,
    ONES,
    OURS,
    RECORDS,
    RUN,
    RUNS,
    SPACE,
    STORE,
    TENANT,
    fill,
    remember,
)

_fillings = itertools.count()
TABLES = [table.name for table in TENANT_TABLES]


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
    """A method that is added without a case in `support/isolation.py` fails here."""
    public = {
        name
        for name in dir(kind)
        if not name.startswith("_")
        and not isinstance(found := getattr(kind, name), property)
        and not hasattr(found, "__deprecated__")
    }
    assert public == set(cases) | {f"a{name}" for name in set(cases) - NOT_TWINNED} | others


@pytest.fixture(scope="module")
def without_policies(_databases):
    """A database of which the owner has switched row-level security off."""
    url = _databases(migrated=True)
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
        db.tenant("nobody").list_collections()
        assert removed is None or removed
        yield db, outside


@pytest.fixture(scope="module")
def filled(app_url, admin_url, without_policies):
    """Tenant A, filled once in each database: whatever the tests do as B, it must stay as it is."""
    tenant = f"isolation-A-{os.getpid()}-{next(_fillings)}"  # a module may come up twice in a process
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


def outcome(call, names, tenant):
    """What a caller can learn from a call, with the names it used taken out."""
    try:
        shown = repr(call())
    except PgRecallError as exc:
        shown = f"{type(exc).__name__}: {exc}"
    return shown.replace(names.prefix, "NAME").replace(tenant, "TENANT")


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
    """For tenant B, A's names look like missing ones, and nothing of A is changed."""
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
        found = db.tenant(f"{tenant_id}-B").vectors(OURS.collection, SPACE).list_chunks(limit=1_000)
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
    assert (first.count(), first.list_documents()[0].source) == (1, "source of first")
