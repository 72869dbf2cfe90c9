"""Hash partitions by tenant: the same SQL, planned for one partition; graphs, drift and moves as without them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator

import psycopg
import pytest
import sqlalchemy as sa
from alembic import command

import pgrecall
from conftest import LOGINS, NewDatabase, as_dsn
from pgrecall import Document, F, Fact, Message, doctor, embedded, transfer
from pgrecall.admin import migrate
from pgrecall.errors import ConfigurationError
from pgrecall.statements import reads
from pgrecall.statements import search as searches
from pgrecall.statements.partitions import PARTITIONED
from pgrecall.statements.reads import Where
from pgrecall.statements.search import Form, Graph
from support.cli import run as cli
from support.cli import text
from support.data import chunks
from support.graphs import DIM, LARGE, SPACE, ids, made, recall, run, vectors

PARTS = 4
GRAPHS = "SELECT relname::text FROM pg_class WHERE relname LIKE 'chunk_vectors_graph%' ORDER BY 1"


def partitioned(new_database: NewDatabase) -> sa.URL:
    url = new_database()
    migrate.upgrade(url, parts=PARTS)
    return url


@pytest.fixture(scope="module")
def shared(_databases: NewDatabase) -> sa.URL:
    url = partitioned(_databases)
    with psycopg.connect(as_dsn(url), autocommit=True) as connection:
        connection.execute(LOGINS)
    return url


@pytest.fixture
def url(new_database: NewDatabase) -> sa.URL:
    return partitioned(new_database)


@pytest.fixture
def database(url: sa.URL) -> Iterator[pgrecall.Database]:
    with pgrecall.connect(url, admin_url=url, promote_on_upsert=False) as opened:
        yield opened


@pytest.fixture
def db(shared: sa.URL) -> Iterator[pgrecall.Database]:
    """As the application and maintenance log in, on partitioned tables."""
    app, maintenance = (shared.set(username=name) for name in ("test_app", "test_maintenance"))
    with pgrecall.connect(app, maintenance_url=maintenance) as opened:
        yield opened


def partitions_in(plan: str) -> set[str]:
    """The partitions, by number, that a plan names."""
    tables = "|".join(table.name for table in PARTITIONED)
    return set(re.findall(rf"\b(?:{tables})_p(\d+)\b", plan))


def explained(database: pgrecall.Database, statement: str, params: dict[str, object], **settings: str) -> str:
    gate = database.backend.engines.sync_gate()
    with gate.transaction(database.backend.scope(gate, "t0").setting(settings)) as tx:
        return "\n".join(row[0] for row in tx.rows("EXPLAIN " + statement, params))


def test_a_graph_s_life_in_partitions(url, database):
    """It is built in each partition, searched in the tenant's, entered, half emptied, rebuilt and dropped."""
    stores = [database.tenant(f"t{n}").vectors("large", SPACE) for n in range(6)]
    contents = [made(LARGE, n) for n in range(6)]
    for store, content in zip(stores, contents, strict=True):
        store.upsert(content)
    result = []
    [done] = database.maintain(progress=lambda what, at, total: result.append((at, total)))
    assert (done.action, done.rows, done.generation) == ("built", 6 * LARGE, 1)
    assert run(url, GRAPHS) == [(f"chunk_vectors_graph_1_1_p{n}",) for n in range(PARTS)]
    assert all(at <= total for at, total in result)
    for store, content in zip(stores, contents, strict=True):
        assert recall(store, content) >= 0.98
        assert store.query(vectors(1)[0], explain=True).explanation.shape == "graph"
    [new] = made(1, 77, "new")
    stores[0].upsert([new])
    [done] = database.maintain()
    assert (done.action, done.rows) == ("entered", 1)
    assert ids(stores[0].query(new.embedding, 1)) == ["new00000"]
    # Half a graph is none, though each index of it is valid: the next maintenance drops it, and builds.
    run(url, "DROP INDEX pgrecall.chunk_vectors_graph_1_1_p2")
    database.backend.routes.forget()
    assert stores[0].query(vectors(1)[0], explain=True).explanation.shape == "exact"
    assert {f.check: f.status for f in doctor.diagnose(database)}["graphs"] == "warn"
    [done] = database.maintain()
    assert (done.action, done.generation) == ("built", 2)
    assert run(url, GRAPHS) == [(f"chunk_vectors_graph_1_2_p{n}",) for n in range(PARTS)]
    found = doctor.examine(database)
    assert {f.check for f in found.findings if f.status != "ok"} <= {"login", "statistics"}
    assert found.graphs[0].recall >= 0.98
    for n in range(6):
        database.delete_tenant(f"t{n}")
    assert [done.action for done in database.maintain()] == ["dropped"] and run(url, GRAPHS) == []


def test_each_statement_of_a_tenant_touches_one_partition(url, database):
    """EXPLAIN of searches by both shapes, filtered, of a write, a delete, a count: one partition, and its graph."""
    store = database.tenant("t0").vectors("large", SPACE, text_config="english")
    store.upsert(made(LARGE), documents=[Document("d")])
    database.maintain()
    space = {"space": 1, "provider": "test", "model": "sixteen", "dim": DIM, "distance": "cosine"}
    here = {"tenant": "t0", "collection": "large"}
    asked = here | space | {"k": 10, "fetch": 100, "most": 1_000, "query": str(vectors(1)[0].tolist())}
    graph = searches.search(Form("cosine", graph=Graph(1, DIM, 1)), Where.of(None))
    iterative = {"hnsw.iterative_scan": "relaxed_order"}
    by_graph = explained(database, graph, asked, enable_sort="off", **iterative)
    [number] = partitions_in(by_graph)
    assert f"Index Scan using chunk_vectors_graph_1_1_p{number} on chunk_vectors_p{number}" in by_graph
    where = Where.of(F.lang == "de")
    filtered = reads.params(where)
    for statement, params in (
        (searches.search(Form("cosine"), Where.of(None)), asked),
        (searches.search(Form("cosine"), where), asked | filtered),
        (searches.search(Form("cosine", graph=Graph(1, DIM, 1)), where), asked | filtered),
        (reads.count(where), here | filtered),
        (reads.delete(where), here | filtered),
        ("UPDATE pgrecall.chunks SET text = 'x' WHERE tenant_id = %(tenant)s AND id = 'a'", here),
    ):
        assert partitions_in(explained(database, statement, params)) == {number}, statement


def test_what_writes_moves_and_erases_works_on_partitions(db, tenant_id, space):
    """Full text for a collection that has rows, keys, transfer, sweep, erasure of a subject and of the tenant."""
    tenant = db.tenant(tenant_id)
    store = tenant.vectors("handbook", space)
    store.upsert(chunks(30), documents=[Document("c-doc-0", source="wiki")])
    tenant.set_text_config("handbook", "english")
    assert tenant.vectors("handbook", space).query(text="number", top_k=50)
    assert tenant.index_key("handbook", "lang").ready and store.count(F.lang == "de") == 10
    copied = transfer.import_lines(db.tenant(f"{tenant_id}-copy"), list(transfer.export_lines(store)), "copy")
    assert copied.written == 30
    memory = tenant.memory(actor="test")
    memory.put_fact(Fact("ann", "likes", "tea", "Ann likes tea.", ttl=0.001))
    memory.put_fact(Fact("ann", "likes", "milk", "Ann likes milk."))
    tenant.chat("s", subject="ann").append([Message("user", "hello")])
    assert db.sweep()["memory_facts"] >= 1
    report = tenant.erase_subject("ann", actor="test")
    assert report["memory_facts"] == 1 and report["chat_messages"] == 1 and not any(report.remaining.values())
    store.delete_by_doc_id("c-doc-1")
    gone = db.delete_tenant(tenant_id)
    assert (gone["chunks"], gone["chunk_vectors"]) == (25, 25) and not any(gone.remaining.values())


def test_partitions_are_closed_and_the_doctor_and_drift_are_content(shared, db):
    """Nobody reads a partition by its name; what is done to one is drift; Alembic sees none."""
    app = shared.set(username="test_app")
    assert cli("db", "check", "-u", text(shared)).code == 0
    checks = {finding.check: finding.status for finding in doctor.diagnose(db)}
    assert (checks["drift"], checks["row security"], checks["indexes"]) == ("ok", "ok", "ok")
    with psycopg.connect(as_dsn(app), autocommit=True) as connection:
        connection.execute("SET ROLE pgrecall_app")
        for number in range(PARTS):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"SELECT FROM pgrecall.chunks_p{number}")
    with migrate._connected(shared, locked=False) as (_, config):
        command.check(config)
    part = "pgrecall.chunks_p1"
    for change, undo in (
        (f"GRANT SELECT ON {part} TO pgrecall_app", f"REVOKE ALL ON {part} FROM pgrecall_app"),
        (f"ALTER TABLE {part} NO FORCE ROW LEVEL SECURITY", f"ALTER TABLE {part} FORCE ROW LEVEL SECURITY"),
        (f"CREATE POLICY x ON {part} TO pgrecall_app USING (true)", f"DROP POLICY x ON {part}"),
    ):
        run(shared, change)
        result = cli("db", "check", "-u", text(shared))
        run(shared, undo)
        assert result.code == 1 and "chunks_p1" in result.out, change


def test_partitions_are_chosen_once_and_while_the_tables_are_empty(new_database):
    """From the command line; the same again is nothing, another number is refused, a reset keeps it."""
    empty = new_database()
    made = cli("db", "upgrade", "--partitions", "3", "-u", text(empty), "--json")
    assert made.json == {"before": None, "after": migrate.head()}
    assert cli("db", "status", "-u", text(empty), "--json").json["partitions"] == 3
    assert cli("db", "upgrade", "--partitions", "3", "-u", text(empty)).code == 0
    other = cli("db", "upgrade", "--partitions", "5", "-u", text(empty))
    assert other.code == 3 and "have 3 partitions" in other.err
    assert cli("db", "upgrade", "--partitions", "1", "-u", text(empty)).code == 2
    assert cli("db", "upgrade", "0003", "--partitions", "4", "-u", text(empty)).code == 2
    cli("db", "mark", "development", "-u", text(empty))
    assert cli("db", "reset", "-y", "-u", text(empty)).code == 0
    assert cli("db", "status", "-u", text(empty), "--json").json["partitions"] == 3
    # The newest revision is taken back, and run again on partitioned tables.
    migrate.downgrade(empty, "-1")
    migrate.upgrade(empty)
    assert cli("db", "check", "-u", text(empty)).code == 0


def test_filled_tables_are_refused_for_any_owner(new_database):
    """A plain owner sees no row under forced row-level security, and must not take that for empty tables."""
    url = new_database()
    run(url, "CREATE EXTENSION vector")
    migrate.upgrade(new_database())  # the server has the roles
    run(url, """DO $$ BEGIN IF to_regrole('plain_owner') IS NULL THEN CREATE ROLE plain_owner LOGIN; END IF; END $$""")
    run(url, "GRANT pgrecall_app, pgrecall_maintenance TO plain_owner WITH INHERIT FALSE, SET TRUE")
    run(url, f'ALTER DATABASE "{url.database}" OWNER TO plain_owner')
    owner = url.set(username="plain_owner")
    migrate.upgrade(owner)
    with pgrecall.connect(owner) as database:
        store = database.tenant("acme").vectors("handbook", SPACE)
        store.upsert(made(3))
        with pytest.raises(ConfigurationError, match="have rows"):
            migrate.upgrade(owner, parts=PARTS)
        assert store.count() == 3
        store.drop()
        database.delete_tenant("acme")
    assert cli("db", "check", "-u", text(owner)).code == 0
    migrate.upgrade(owner, parts=PARTS)
    assert cli("db", "check", "-u", text(owner)).code == 0


def test_rows_move_into_partitions_by_a_dump(new_database, shared):
    """What docs/scaling.md tells: the data of an unpartitioned database, restored into one with partitions."""
    plain, parts = new_database(), new_database()
    migrate.upgrade(plain)
    migrate.upgrade(parts, parts=PARTS)
    with pgrecall.connect(plain) as database:
        store = database.tenant("acme").vectors("handbook", SPACE, text_config="english")
        store.upsert(made(20), documents=[Document("d", source="wiki")])
        database.tenant("acme").memory(actor="test").put_fact(Fact("ann", "likes", "tea", "tea"))
    dump, restore = (str(embedded.binaries(18) / name) for name in ("pg_dump", "psql"))
    chosen = ["--data-only", "--schema=pgrecall", "--exclude-table=pgrecall.alembic_version"]
    result = subprocess.run([dump, *chosen, f"--dbname={as_dsn(plain)}"], text=True, check=True, capture_output=True)
    lines = "".join(line for line in result.stdout.splitlines(keepends=True) if "transaction_timeout" not in line)
    command = [restore, "--quiet", "--set=ON_ERROR_STOP=1", "--single-transaction", f"--dbname={as_dsn(parts)}"]
    subprocess.run(command, input=lines, text=True, check=True, capture_output=True)
    with pgrecall.connect(parts) as database:
        store = database.tenant("acme").vectors("handbook", SPACE)
        assert (store.count(), ids(store.query(made(1)[0].embedding, 1))) == (20, ["c00000"])
        assert len(database.tenant("acme").memory(actor="test").search_facts(subject="ann")) == 1


def test_the_sql_for_an_administrator_makes_the_same_tables(new_database):
    """`--sql` through psql, and an upgrade from here, leave no difference."""
    by_hand, from_here = new_database(), new_database()
    migrate.upgrade(from_here, parts=PARTS)
    script = cli("db", "upgrade", "--sql", "--partitions", str(PARTS)).out
    psql = [str(embedded.binaries(18) / "psql"), "--quiet", "--set=ON_ERROR_STOP=1", f"--dbname={as_dsn(by_hand)}"]
    subprocess.run(psql, input=script, text=True, check=True, capture_output=True)
    dumps = []
    for url in (by_hand, from_here):
        dump = [str(embedded.binaries(18) / "pg_dump"), "--schema-only", f"--dbname={as_dsn(url)}"]
        result = subprocess.run(dump, text=True, check=True, capture_output=True).stdout
        dumps.append([line for line in result.splitlines() if not line.startswith(("\\restrict", "\\unrestrict"))])
    assert dumps[0] == dumps[1]
