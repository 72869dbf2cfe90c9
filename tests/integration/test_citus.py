"""Citus, as far as it can be tested without: the rules of its planner on each statement's parse tree, and what
`pgrecall db distribute` runs, on a database whose functions of Citus are stand-ins that check the order of things.

The stand-ins move nothing. What they prove is that every statement is valid SQL on a migrated database, that a table
has no foreign key, policy or row-level security when it is distributed, and all of them afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise

import psycopg
import pytest
import sqlalchemy as sa

import pgrecall
from conftest import LOGINS, as_dsn
from pgrecall import Fact, Message, RunState, doctor
from pgrecall.admin import drift, migrate
from pgrecall.admin import leakproof as tuning
from pgrecall.postgres.scopes import Ground, Scope
from pgrecall.schema import TENANT_TABLES, embed_spaces
from support.citus import STAND_INS, Catalog, Rules
from support.cli import run as cli
from support.cli import text
from support.data import chunks, vectors
from support.graphs import LARGE, SPACE, made, run
from support.statements import STATEMENTS

MINUTE = timedelta(minutes=1)
#: Of no table that Citus distributes, or only where there are partitions, which Citus' tables have not.
NOT_ON_CITUS = {"graphs.PARTS"}


@pytest.fixture(scope="module")
def catalog(admin_url: sa.URL) -> Iterator[Catalog]:
    with psycopg.connect(as_dsn(admin_url), autocommit=True) as connection:
        yield Catalog(connection)


@pytest.fixture(scope="module")
def rules(catalog: Catalog) -> Rules:
    distributed = {f"pgrecall.{table.name}" for table in TENANT_TABLES}
    return Rules(catalog, distributed, {f"pgrecall.{embed_spaces.name}"})


def test_citus_takes_every_statement_as_it_is(rules):
    """None breaks a rule of its planner, nor one of row-level security on its nodes."""
    assert len(STATEMENTS) > 900
    broken = {name: found for name, sql in STATEMENTS.items() if (found := rules.broken(sql))}
    assert broken.keys() == NOT_ON_CITUS, {name: broken[name] for name in broken.keys() - NOT_ON_CITUS}


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        (
            "UPDATE pgrecall.memory_facts SET expires_at = now() + ttl * '1 s'::interval WHERE tenant_id = %(t)s",
            "stable",
        ),
        ("UPDATE pgrecall.runs SET expires_at = coalesce(now(), expires_at) WHERE tenant_id = %(t)s", "COALESCE"),
        ("DELETE FROM pgrecall.runs WHERE tenant_id = %(t)s AND run_id = concat(status, 'x')", "stable"),
        ("UPDATE pgrecall.runs SET updated_at = clock_timestamp() WHERE tenant_id = %(t)s", "volatile"),
        ("DELETE FROM pgrecall.runs WHERE tenant_id = %(t)s AND run_id IN (SELECT random()::text)", "volatile"),
        ("DELETE FROM pgrecall.runs WHERE tenant_id = %(t)s RETURNING now()", "RETURNING"),
        ("WITH gone AS (DELETE FROM pgrecall.runs WHERE tenant_id = %(t)s RETURNING now()) SELECT 1", "RETURNING"),
        ("INSERT INTO pgrecall.tenants (tenant_id) SELECT %(t)s", "COPY"),
        ("INSERT INTO pgrecall.tenants (tenant_id) SELECT %(t)s RETURNING now()", "RETURNING"),
        (
            "INSERT INTO pgrecall.tenants AS t (tenant_id) VALUES (%(t)s) "
            "ON CONFLICT (tenant_id) DO UPDATE SET erased_at = now()",
            "ON CONFLICT",
        ),
        ("INSERT INTO pgrecall.tenants (tenant_id) VALUES ((SELECT tenant_id FROM pgrecall.runs LIMIT 1))", "subquery"),
        ("SELECT EXISTS (SELECT FROM pg_class) FROM pgrecall.runs WHERE tenant_id = %(t)s", "local tables"),
        ("SELECT pg_advisory_xact_lock(1) FROM pgrecall.runs WHERE tenant_id = %(t)s", "on a worker"),
        (
            "WITH held AS (SELECT c.name FROM pgrecall.collections c JOIN pgrecall.embed_spaces s ON s.id = c.space_id "
            "WHERE c.tenant_id = %(t)s FOR UPDATE OF c) "
            "DELETE FROM pgrecall.runs r USING held WHERE r.tenant_id = %(t)s",
            "CTE locks",
        ),
        ("SELECT 1 FROM pgrecall.embed_spaces s WHERE s.id = 1 FOR SHARE", "of a reference table"),
    ],
)
def test_a_statement_that_citus_would_refuse_is_seen(rules, sql, why):
    """The check above can fail: each of these breaks one rule."""
    assert any(why in found for found in rules.broken(sql)), rules.broken(sql)


def test_settings_travel_one_by_one_and_the_propagation_first():
    """On Citus BEGIN is followed by the switch, then role, path and tenant, each a literal SET LOCAL of its own."""
    scope = Scope.of_tenant("it's; one", Ground("public", citus=True)).setting({"hnsw.ef_search": "100"})
    assert scope.separate_messages
    assert scope.opening == (
        "BEGIN ISOLATION LEVEL READ COMMITTED",
        "SET LOCAL citus.propagate_set_commands = 'local'",
        'SET LOCAL ROLE "pgrecall_app"',
        'SET LOCAL search_path = pg_catalog, "public", pg_temp',
        "SET LOCAL \"pgrecall\".\"tenant_id\" = 'it''s; one'",
    )
    assert scope.local == ('SET LOCAL "hnsw"."ef_search" = \'100\'',)
    plain = Scope.of_tenant("acme", Ground("public"))
    assert not plain.separate_messages and not any("citus" in statement for statement in plain.opening)


@pytest.fixture(scope="module")
def distributed(_databases) -> Iterator[sa.URL]:
    """A filled database with Citus' stand-ins, distributed from the command line; tests work on copies of it."""
    url = _databases(migrated=True)
    with psycopg.connect(as_dsn(url), autocommit=True) as connection:
        connection.execute(LOGINS)
        connection.execute(STAND_INS)
    with pgrecall.connect(url, admin_url=url) as db:
        db.tenant("before").vectors("large", SPACE).upsert(made(LARGE))
        db.maintain()
    dry = cli("db", "distribute", "--dry-run", "--shards", "16", "-u", text(url), "--json").json
    assert not dry["run"] and run(url, "SELECT count(*) FROM pg_dist_partition") == [(0,)]
    done = cli("db", "distribute", "--shards", "16", "-u", text(url), "--json").json
    assert done == {"statements": dry["statements"], "run": True}
    yield url
    with psycopg.connect(as_dsn(url), autocommit=True) as connection:
        connection.execute("ALTER ROLE pgrecall_app NOLOGIN; ALTER ROLE pgrecall_maintenance NOLOGIN")


@pytest.fixture
def standing(distributed, new_database) -> sa.URL:
    """A copy of that database."""
    return new_database(distributed)


def test_the_tables_are_distributed_and_whole_again(standing):
    """The registry comes first, then tenants, then the co-located tables; keys, policies and grants are complete."""
    recorded = [what for (what,) in run(standing, "SELECT what FROM recorded ORDER BY n")]
    placed = [what for what in recorded if what.startswith(("reference", "distributed"))]
    assert placed[:2] == ["reference pgrecall.embed_spaces", "distributed pgrecall.tenants"]
    assert len(placed) == len(TENANT_TABLES) + 1
    assert sum(what.startswith("truncated") for what in recorded) == len(placed)
    workers = [what for what in recorded if what.startswith("workers")]
    assert len(workers) == 2 and all("enable_ddl_propagation" in what and "LOGIN" in what for what in workers)
    with migrate._connected(standing, locked=False) as (connection, _):
        assert drift.differences(connection) == []
    logins = "SELECT rolname::text FROM pg_roles WHERE rolname LIKE 'pgrecall%' AND rolcanlogin ORDER BY 1"
    assert run(standing, logins) == [("pgrecall_app",), ("pgrecall_maintenance",)]
    # The graph went before, so that rows are copied and not entered; its rows wait, and maintenance builds it again.
    assert run(standing, "SELECT graph_generation, graph_rows FROM pgrecall.embed_spaces") == [(0, 0)]
    with pgrecall.connect(standing, admin_url=standing) as db:
        assert len(db.tenant("before").vectors("large", SPACE).query(made(1)[0].embedding)) == 10
        assert [done.action for done in db.maintain()] == ["built"]
        tenant, question = db.tenant("before"), made(1)[0].embedding
        with tenant.atomic():  # the graph's settings are set, and put back, one by one too
            assert len(tenant.vectors("large", SPACE).query(question)) == 10
        assert tenant.vectors("large", SPACE).query(question, explain=True).explanation.shape == "graph"


def test_what_is_printed_is_one_transaction_of_ddl(standing, new_database):
    """Roles before it, local rows after it; GRANTs of reference and distributed tables are statements of their own."""
    url = new_database(migrated=True)
    run(url, STAND_INS)
    script = cli("db", "distribute", "--dry-run", "-u", text(url)).out
    statements = [line.strip().rstrip(";") for line in script.strip().split(";\n")]
    begin, commit = statements.index("BEGIN"), statements.index("COMMIT")
    kinds = [
        "LOCK TABLE", "ALTER TABLE .* DROP CONSTRAINT", "DROP POLICY", "ALTER TABLE .* NO FORCE",
        "SELECT create_reference_table", "SELECT create_distributed_table", "ALTER TABLE .* ADD CONSTRAINT",
        "ALTER TABLE .* (?<!NO )FORCE ROW", "CREATE POLICY", "GRANT",
    ]  # fmt: skip
    ranges = []
    for kind in kinds:
        at = [n for n, statement in enumerate(statements) if re.match(kind, statement)]
        assert at and begin < at[0] and at[-1] < commit, kind
        ranges.append((at[0], at[-1]))
    assert all(one[1] < other[0] for one, other in pairwise(ranges)), ranges
    assert statements[begin + 1] == "SET LOCAL citus.multi_shard_modify_mode = 'sequential'"
    assert not any("STATISTICS" in statement or "TRIGGER" in statement for statement in statements)
    for statement in statements:
        if statement.startswith("GRANT") and "SCHEMA" not in statement:
            assert statement.count("pgrecall.") == 1, statement
    assert "shard_count" not in script


def test_what_was_forgotten_is_reported_and_distributed_by_a_second_run(standing):
    """A table that a later revision added: the doctor fails, the next run distributes it alone, and then nothing."""

    def placement() -> tuple[str, str, str]:
        with pgrecall.connect(standing) as db:
            [found] = [f for f in doctor.diagnose(db) if f.check == "placement"]
        return found.status, found.found, found.fix

    status, found, _ = placement()
    assert status == "ok" and f"{len(TENANT_TABLES)} tables by tenant in 16 shards, co-located" in found
    assert "embed_spaces on every node" in found
    for table in ("runs", "embed_spaces"):
        gone = "DELETE FROM pg_dist_partition WHERE logicalrelid = %s::regclass"
        run(standing, gone, f"pgrecall.{table}")
        status, found, fix = placement()
        assert (status, fix) == ("fail", "pgrecall db distribute") and f"but {table} are not" in found
        again = cli("db", "distribute", "-u", text(standing), "--json").json["statements"]
        created = [s for s in again if s.startswith("SELECT create")]
        assert len(created) == 1 and f"pgrecall.{table}'" in created[0]
        assert cli("db", "check", "-u", text(standing)).code == 0
        assert placement()[0] == "ok"
    run(standing, "UPDATE pg_dist_partition SET colocationid = 99 WHERE logicalrelid = 'pgrecall.chunks'::regclass")
    status, found, fix = placement()
    assert status == "fail" and found.startswith("chunks are not co-located") and "pgrecall.chunks" in fix
    run(standing, "UPDATE pg_dist_partition SET colocationid = 7 WHERE colocationid = 99")
    assert cli("db", "distribute", "-u", text(standing)).out.startswith("Every table is already distributed")


def test_roles_have_login_on_citus_and_only_there(standing):
    """The doctor asks for LOGIN on Citus, where it warns of it elsewhere; drift takes both."""

    def roles() -> tuple[str, str]:
        with pgrecall.connect(standing) as db:
            [found] = [f for f in doctor.diagnose(db) if f.check == "roles"]
        return found.status, found.found

    assert roles()[0] == "ok"
    run(standing, "ALTER ROLE pgrecall_app NOLOGIN")
    assert roles()[0] == "fail" and "may not log in" in roles()[1]
    run(standing, "ALTER ROLE pgrecall_app LOGIN")


def test_a_replica_of_the_coordinator_is_not_read(standing, caplog):
    """Its log says nothing of what the workers committed: said once, and the primary answers."""
    with pgrecall.connect(standing, read_url=standing.set(database="nowhere")) as db:
        store = db.tenant("before").vectors("large", SPACE)
        assert (store.count(), store.count()) == (LARGE, LARGE)
    assert [r.message.partition(":")[0] for r in caplog.records] == ["read_url is not used"]


def test_a_worker_that_refuses_stops_it_and_marks_go_to_workers(new_database):
    """The first refusal ends it before a table was touched; `db tune` marks the functions on the workers too."""
    url = new_database(migrated=True)
    run(url, STAND_INS)
    run(url, "CREATE TABLE refusing ()")
    refused = cli("db", "distribute", "-u", text(url))
    assert refused.code == 3 and "two:5432" in refused.err
    assert run(url, "SELECT count(*) FROM pg_dist_partition") == [(0,)]
    run(url, "DROP TABLE refusing")
    assert len(tuning.tune(url)) == 2
    marked = [
        what for (what,) in run(url, "SELECT what FROM recorded") if "NOT LEAKPROOF" not in what and "LEAKPROOF" in what
    ]
    assert len(marked) == 2
    # An error of Citus' own leaves nothing behind.
    run(
        url,
        "CREATE OR REPLACE FUNCTION pg_catalog.create_reference_table(t regclass) RETURNS void LANGUAGE sql "
        "AS 'SELECT 1/0'",
    )
    failed = cli("db", "distribute", "-u", text(url))
    assert failed.code == 3 and "division by zero" in failed.err
    assert cli("db", "check", "-u", text(url)).code == 0


def test_without_citus_and_with_partitions_it_is_refused(new_database):
    """Said what to do first; a database that is not at this revision is refused as well."""
    url = new_database()
    assert "db upgrade" in cli("db", "distribute", "-u", text(url)).err
    migrate.upgrade(url, parts=2)
    assert "extension citus is not installed" in " ".join(cli("db", "distribute", "-u", text(url)).err.split())
    run(url, STAND_INS)
    refused = cli("db", "distribute", "-u", text(url))
    assert refused.code == 3 and "2 partitions" in refused.err
    assert cli("db", "distribute", "--shards", "0", "-u", text(url)).code == 2


def test_the_other_stores_work_in_such_transactions(standing, tenant_id, space):
    """Facts, chats, runs with evidence, atomic blocks with a graph's settings in them, erasure, sweep, both modes."""
    app, maintenance = (standing.set(username=name) for name in ("test_app", "test_maintenance"))
    with pgrecall.connect(app, maintenance_url=maintenance) as db:
        tenant = db.tenant(tenant_id)
        store, memory, runs = tenant.vectors("handbook", space), tenant.memory(actor="test"), tenant.runs(ttl=MINUTE)
        with tenant.atomic():
            store.upsert(chunks(12))
            fact = memory.put_fact(Fact("ann", "likes", "tea", "tea", ttl=60, refresh_on_read=True))
            assert len(store.query(vectors(1)[0], 5)) == 5
        assert memory.get(fact.id) is not None
        chat = tenant.chat("s", subject="ann", ttl=MINUTE)
        [sent] = chat.append([Message("user", "hello", id="m")])
        assert chat.replace_message("m", Message("user", "hello again")).text == "hello again"
        assert [hit.message.text for hit in tenant.search_chats("again")] == ["hello again"] and sent.position == 0
        run_state = runs.put(RunState("r", {"n": 1}))
        runs.put(RunState("r", {"n": 2}, state_version=run_state.state_version))
        store.for_run("r").query(vectors(1)[0])
        assert runs.append_event("r", "k").seq == 1 and len(runs.list_evidence("r")) == 1
        assert dict(db.sweep(dry_run=True)) is not None
        assert tenant.erase_subject("ann", actor="desk")["memory_facts"] == 1
        assert not any(db.delete_tenant(tenant_id).remaining.values())
