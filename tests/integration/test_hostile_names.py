"""A tenant's name is never more than a name, no call chooses another tenant, and a connection keeps neither."""

from __future__ import annotations

import asyncio
import inspect

import pytest
import sqlalchemy as sa
from psycopg.pq import TransactionStatus
from sqlalchemy.ext.asyncio import create_async_engine

import pgrecall
from pgrecall import Chunk, PgRecallError
from pgrecall.testing.contract.base import AsyncFace
from support.isolation import ONES, SPACE

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
        assert [c.name for c in db.tenant(name).list_collections()] == [name]
        assert db.tenant_info(name).tenant_id == name
        gate = db.backend.engines.sync_gate()
        with gate.transaction(db.backend.scope(gate, name)) as tx:
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
