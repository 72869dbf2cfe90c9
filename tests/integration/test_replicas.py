"""Reads from a streaming replica, made by Postgres' own pg_basebackup: own writes are seen, and it may go away."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

import pgrecall
from benchmarks.proxy import Proxy
from conftest import as_dsn
from pgrecall import Fact, Message, RunState, doctor, embedded
from pgrecall.admin import migrate
from pgrecall.postgres import replicas
from support.cli import run as cli
from support.cli import text
from support.data import chunks, vectors

SETTINGS = {"fsync": "off", "shared_buffers": "64MB", "max_connections": "50"}


@dataclass
class Pair:
    """A primary and its replica."""

    primary: sa.URL
    replica: sa.URL
    home: Path
    version: int

    def ask(self, url: sa.URL, statement: str) -> object:
        with psycopg.connect(as_dsn(url), autocommit=True) as connection:
            found = connection.execute(statement).fetchone()
        return found[0] if found else None

    def pause(self) -> None:
        """The replica receives, and shows nothing of it."""
        self.ask(self.replica, "SELECT pg_wal_replay_pause()")
        while self.ask(self.replica, "SELECT pg_get_wal_replay_pause_state()") != "paused":
            time.sleep(0.01)

    def catch_up(self) -> None:
        """The replica goes on, until it has all that the primary wrote."""
        self.ask(self.replica, "SELECT pg_wal_replay_resume() WHERE pg_is_wal_replay_paused()")
        # A record of its own: where the log stands at the beginning of a page, nothing is there to be replayed.
        self.ask(self.primary, "SELECT pg_logical_emit_message(false, 'test', 'x')")
        stands = self.ask(self.primary, "SELECT pg_current_wal_flush_lsn()")
        while not self.ask(self.replica, f"SELECT pg_last_wal_replay_lsn() >= '{stands}'"):
            time.sleep(0.01)


@pytest.fixture(scope="module")
def pair(server: embedded.EmbeddedServer, reachable: Path) -> Iterator[Pair]:
    """Servers of their own, of the major that is tested."""
    homes = [reachable / f"{name}-{server.version}" for name in ("primary", "standby")]
    with embedded.start(homes[0], version=server.version, settings=SETTINGS) as primary:
        url = sa.make_url(primary.url)
        migrate.upgrade(url)
        folder, owner = homes[1] / f"pg{server.version}", primary.data.stat()
        homes[1].mkdir(mode=0o755)
        shutil.chown(homes[1], owner.st_uid, owner.st_gid)
        command = [
            str(embedded.binaries(server.version) / "pg_basebackup"),
            "--write-recovery-conf",
            "--checkpoint=fast",
            "--no-sync",
            f"--pgdata={folder}",
            f"--dbname=host={url.query['host']} user=postgres application_name=standby",
        ]
        identity = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if os.geteuid() == 0 else {}
        subprocess.run(command, cwd="/", check=True, capture_output=True, **identity)
        with embedded.start(homes[1], version=server.version, settings=SETTINGS) as standby:
            yield Pair(url, sa.make_url(standby.url), homes[1], server.version)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The replica is asked after every write: what it answers decides, not how long ago the write was."""
    monkeypatch.setattr(replicas, "SETTLE_SECONDS", 0.0)


def test_own_writes_are_seen_and_others_later(pair, tenant_id, space):
    """A handle that wrote reads it at once, in both modes; one that did not reads the replica's older state."""
    with (
        pgrecall.connect(pair.primary, read_url=pair.replica) as writer,
        pgrecall.connect(pair.primary, read_url=pair.replica) as other,
    ):
        mine, theirs = (db.tenant(tenant_id).vectors("handbook", space) for db in (writer, other))
        mine.upsert(chunks(5))
        pair.catch_up()
        pair.pause()
        mine.upsert(chunks(12))
        assert (mine.count(), len(mine.query(vectors(1)[0], 20))) == (12, 12)
        assert (theirs.count(), len(theirs.query(vectors(1)[0], 20))) == (5, 5)

        async def again() -> list[int]:
            before = [await mine.acount(), await theirs.acount()]
            await mine.aupsert(chunks(20))
            return [*before, await mine.acount(), len(await theirs.alist_chunks(limit=50))]

        assert asyncio.run(again()) == [12, 5, 20, 5]
        # An atomic block is the primary's, its reads too; what it committed is seen behind it.
        with other.tenant(tenant_id).atomic():
            assert theirs.count() == 20
            theirs.delete(["c0000"])
            assert theirs.count() == 19
        assert theirs.count() == 19
        pair.catch_up()
        # Caught up, the replica answers those who wrote as well: what others write then shows it.
        pair.pause()
        with pgrecall.connect(pair.primary) as third:
            third.tenant(tenant_id).vectors("handbook", space).clear()
        assert (mine.count(), theirs.count()) == (19, 19)
        assert writer.tenant_info(tenant_id) is not None
        pair.catch_up()
        assert (mine.count(), theirs.count()) == (0, 0)


def test_every_read_goes_to_the_replica_at_no_further_round_trip(pair, tenant_id, space):
    """The primary hears nothing of a read, warm or after a write; a write takes as many round trips as without one."""
    with (
        Proxy(pair.primary) as primary,
        Proxy(pair.replica) as replica,
        pgrecall.connect(primary.url) as alone,
        pgrecall.connect(primary.url, read_url=replica.url) as db,
    ):
        stores = [each.tenant(tenant_id).vectors("handbook", space, text_config="english") for each in (alone, db)]
        for n, each in enumerate(stores):
            each.upsert(chunks(4, prefix=f"warm{n}"))
        store, tenant, trips = stores[1], db.tenant(tenant_id), []
        primary.delay = 0.03
        for n, each in enumerate(stores):
            with primary.counting() as count:
                each.upsert(chunks(9, prefix=f"new{n}"))
            trips.append(count.trips)
        assert trips[0] == trips[1]
        primary.delay = 0.0
        chat, runs, memory = tenant.chat("s"), tenant.runs(), tenant.memory(actor="test")
        chat.append([Message("user", "hello")])
        runs.put(RunState("r", {"n": 1}))
        fact = memory.put_fact(Fact("ann", "likes", "tea", "Ann likes tea."))
        store.for_run("r").query(vectors(1)[0])
        reads = [
            lambda: store.query(vectors(1)[0], 5),
            lambda: store.query(text="number"),
            lambda: store.query_mmr(vectors(1)[0], 3),
            lambda: store.get(["new10000"]),
            lambda: store.list_chunks(limit=3),
            lambda: store.count(),
            lambda: store.list_documents(),
            lambda: tenant.list_collections(),
            lambda: db.tenant_info(tenant_id),
            lambda: chat.list_messages(5),
            lambda: chat.window(5),
            lambda: tenant.list_chats(),
            lambda: tenant.search_chats("hello"),
            lambda: runs.get("r"),
            lambda: runs.list_runs(),
            lambda: runs.list_evidence("r"),
            lambda: memory.get(fact.id),
            lambda: memory.search_facts(subject="ann", text="tea"),
            lambda: memory.history(key="tea"),
            lambda: memory.list_events(),
        ]
        pair.catch_up()
        for number, read in enumerate(reads):
            with primary.counting() as asked:
                assert read(), number
            assert asked.trips == 0, number
        store.query(vectors(1)[0])
        replica.delay = 0.03
        with replica.counting() as count:
            store.query(vectors(1)[0])
        assert count.trips == 2


def test_a_replica_that_is_gone_costs_a_warning_once(pair, tenant_id, space, caplog, monkeypatch):
    """Reads go on through the primary; when it is back it is used again, by both modes; `close` closes its pool too."""
    caplog.set_level(logging.INFO, logger="pgrecall")
    db = pgrecall.connect(pair.primary, read_url=pair.replica)
    store = db.tenant(tenant_id).vectors("handbook", space)
    store.upsert(chunks(3))
    pair.catch_up()
    assert store.count() == 3
    assert embedded.stop(pair.home, version=pair.version)
    assert [store.count() for _ in range(3)] == [3, 3, 3]

    async def twice() -> list[int]:
        return [await store.acount(), await store.acount()]

    assert asyncio.run(twice()) == [3, 3]
    warned = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warned) == 1 and "read replica does not answer" in warned[0].message
    back = embedded.start(pair.home, version=pair.version, settings=SETTINGS)
    monkeypatch.setattr(replicas, "RETRY_SECONDS", 0.0)
    db.backend.engines._replica_state._down_until = 0.0
    assert store.count() == 3
    assert "answers again" in caplog.records[-1].message
    mine = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgrecall'"
    assert pair.ask(pair.replica, mine) == 1
    db.close()
    while pair.ask(pair.replica, mine):
        time.sleep(0.01)
    back.release()


def test_the_command_line_reads_from_it(pair, tenant_id, space, monkeypatch):
    """By --read-url and by the environment; a URL on the command line never meets the environment's replica."""
    with pgrecall.connect(pair.primary) as db:
        db.tenant(tenant_id).vectors("handbook", space).upsert(chunks(3))
    pair.catch_up()
    monkeypatch.setenv("PGRECALL_READ_URL", "postgresql://nobody@127.0.0.1:1/x")
    listing = ("collections", "list", "-t", tenant_id, "--json")
    with Proxy(pair.replica) as replica:
        for arguments in (("-u", text(pair.primary)), ("-u", text(pair.primary), "--read-url", text(replica.url))):
            done = cli(*listing, *arguments)
            assert done.code == 0 and [row["name"] for row in done.json] == ["handbook"] and "replica" not in done.err
        assert replica.round_trips > 0
    monkeypatch.setenv("PGRECALL_URL", text(pair.primary))
    assert cli(*listing).code == 0


def test_the_doctor_looks_at_the_replica(pair):
    """It says how far a replica is, and warns of one that does not answer, or is none."""

    def status(read_url: sa.URL | None) -> list[str]:
        with pgrecall.connect(pair.primary, read_url=read_url) as db:
            return [found.status for found in doctor.diagnose(db) if found.check == "read replica"]

    gone = pair.replica.set(query={"host": "/nowhere"})
    assert [status(url) for url in (None, pair.replica, pair.primary, gone)] == [[], ["ok"], ["warn"], ["warn"]]
