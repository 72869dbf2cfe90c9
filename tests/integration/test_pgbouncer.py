"""Through the real pgbouncer in transaction mode: two server connections shared by everyone."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

import pgrecall
from pgrecall import embedded
from support.data import chunks

PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")

pytestmark = pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed (.ci/run installs it)")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def bouncer_url(server: embedded.EmbeddedServer, app_url: sa.URL, reachable: Path) -> Iterator[sa.URL]:
    """The shared database through pgbouncer, run by the same system user as the server: it must reach its socket."""
    owner = server.data.stat().st_uid
    folder = reachable / f"pgbouncer-{server.version}"
    folder.mkdir(exist_ok=True)
    port = _free_port()
    (folder / "users.txt").write_text('"test_app" ""\n')
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n* = host={app_url.query['host']} port=5432\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = trust\n"
        f"auth_file = {folder}/users.txt\npool_mode = transaction\ndefault_pool_size = 2\nmax_client_conn = 200\n"
    )
    for path in (folder, *folder.iterdir()):
        os.chown(path, owner, -1)
    assert PGBOUNCER is not None
    as_owner = {"user": owner, "group": pwd.getpwuid(owner).pw_gid} if os.geteuid() == 0 else {}
    with (folder / "log").open("w") as log:
        command = [PGBOUNCER, str(folder / "pgbouncer.ini")]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log, **as_owner)
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        assert process.poll() is None, (folder / "log").read_text()
        time.sleep(0.05)
    yield sa.URL.create("postgresql", "test_app", host="127.0.0.1", port=port, database=app_url.database)
    process.terminate()
    process.wait(10)


def test_tenants_never_mix_on_shared_server_connections(bouncer_url, tenant_id, space):
    """Twelve tenants, sync threads and async tasks, over two server connections: each sees its own rows only."""
    names = [f"{tenant_id}-{n}" for n in range(12)]
    with pgrecall.connect(bouncer_url, pool_size=10) as db:
        stores = [db.tenant(name).vectors("handbook", space) for name in names]

        def write(number: int) -> None:
            stores[number].upsert(chunks(10, seed=number, prefix=f"t{number}-"))

        def read(number: int) -> None:
            for _ in range(20):
                hits = stores[number].query(chunks(1, seed=number)[0].embedding, 20)
                assert len(hits) == 10 and {h.chunk_id.split("-")[0] for h in hits} == {f"t{number}"}

        with ThreadPoolExecutor(12) as pool:
            list(pool.map(write, range(12)))
            list(pool.map(read, range(12)))

        async def aread() -> None:
            calls = [stores[n % 12].aquery(chunks(1)[0].embedding, 20) for n in range(120)]
            for number, hits in enumerate(await asyncio.gather(*calls)):
                assert {h.chunk_id.split("-")[0] for h in hits} == {f"t{number % 12}"}

        asyncio.run(aread())


def test_no_setting_is_left_on_a_server_connection(bouncer_url, tenant_id, space):
    """After calls that succeed and calls that fail, the next client finds neither role nor tenant."""
    with pgrecall.connect(bouncer_url) as db:
        store = db.tenant(tenant_id).vectors("handbook", space)
        store.upsert(chunks(5))
        with pytest.raises(pgrecall.PgRecallError):
            store.upsert([*chunks(5), pgrecall.Chunk("bare", "no vector")])
        store.delete_by_doc_id("c-doc-0")
    engine = sa.create_engine(
        bouncer_url.set(drivername="postgresql+psycopg"), connect_args={"prepare_threshold": None}
    )
    with engine.connect() as connection:
        for _ in range(10):
            row = connection.execute(sa.text("SELECT current_user, current_setting('pgrecall.tenant_id', true)")).one()
            assert row[0] == "test_app" and row[1] in (None, "")
            connection.commit()
    engine.dispose()


def test_a_pooler_that_loses_prepared_statements_costs_nothing_but_time(bouncer_url, tenant_id, space):
    """Before 1.21 pgbouncer knows nothing of them: the answers are right all the while, on whatever connection."""
    with pgrecall.connect(bouncer_url, pool_size=8) as db:
        stores = []
        for number in range(6):
            stores.append(db.tenant(f"{tenant_id}-{number}").vectors("kept", space))
            stores[-1].upsert(chunks(20, prefix=f"p{number}-"))
        right = [[hit.chunk_id for hit in store.query(chunks(1)[0].embedding, 5, exact=True)] for store in stores]

        def ask(turn: int) -> bool:
            found = stores[turn % 6].query(chunks(1)[0].embedding, 5)
            return [hit.chunk_id for hit in found] == right[turn % 6]

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(ask, range(300)))
