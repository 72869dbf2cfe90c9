"""The doctor, on databases that were damaged one way at a time; what it says to do is done, and heals them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import psycopg
import pytest
import sqlalchemy as sa

import pgrecall
from conftest import LOGINS, as_dsn
from pgrecall import doctor
from pgrecall.admin import migrate
from pgrecall.maintenance.advisories import ADVISORIES

_numbers = itertools.count()


class Patient:
    """A migrated database of its own, as its superuser and as the application's login."""

    def __init__(self, url: sa.URL) -> None:
        self.url = url
        self.app_url = url.set(username="test_app")

    def run(self, statement: str) -> None:
        with psycopg.connect(as_dsn(self.url), autocommit=True) as connection:
            connection.execute(statement)

    def findings(self, url: sa.URL | None = None, **options: object) -> dict[str, doctor.Finding]:
        """By check; the worst of each."""
        options = {"maintenance_url": self.url.set(username="test_maintenance"), **options}
        with pgrecall.connect(url or self.app_url, **options) as database:
            found = doctor.diagnose(database)
        rank = ("ok", "warn", "fail").index
        return {f.check: f for f in sorted(found, key=lambda f: rank(f.status))}


@pytest.fixture
def patient(new_database, admin_url) -> Patient:
    url = new_database(migrated=True)
    with psycopg.connect(as_dsn(url), autocommit=True) as connection:
        connection.execute(LOGINS)
    return Patient(url)


@pytest.fixture
def login(patient: Patient) -> Iterator[str]:
    """A login that nobody else uses, dropped at the end: roles belong to the whole server."""
    name = f"doctor_{next(_numbers)}"
    patient.run(f"CREATE ROLE {name} LOGIN")
    yield name
    patient.run(f"REASSIGN OWNED BY {name} TO postgres; DROP OWNED BY {name}; DROP ROLE {name}")


def test_a_healthy_production_database_is_all_well(patient):
    """With logins as documented every check is ok, and says what it found."""
    found = patient.findings()
    assert {f.status for f in found.values()} == {"ok"} and not any(f.fix for f in found.values())
    assert set(found) == {
        "server", "pgvector", "revision", "roles", "row security", "drift", "indexes", "login",
        "maintenance login", "placement", "statistics", "graphs", "filters",
    }  # fmt: skip


DAMAGE = {
    "row security": "ALTER TABLE pgrecall.chunks NO FORCE ROW LEVEL SECURITY",
    "indexes": "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'pgrecall.chunks_metadata_idx'::regclass",
    "drift": "GRANT TRUNCATE ON pgrecall.chunks TO pgrecall_app",
    "revision": "UPDATE pgrecall.alembic_version SET version_num = '0000'",
    "pgvector": "UPDATE pg_extension SET extversion = '0.8.1' WHERE extname = 'vector'",
}
MESSAGE = {
    "row security": "not on and forced on chunks",
    "indexes": "INVALID: chunks_metadata_idx",
    "drift": "pgrecall_app may TRUNCATE on chunks",
    "revision": "revision 0000",
    "pgvector": "CVE-2026-3172",
}


@pytest.mark.parametrize("check", DAMAGE)
def test_damage_is_found_and_named(patient, check):
    """Each fault fails its own check by name, with something to do about it."""
    patient.run(DAMAGE[check])
    found = patient.findings()[check]
    assert found.status == "fail" and MESSAGE[check] in found.found and found.fix and found.expected


@pytest.mark.parametrize("check", ["row security", "pgvector"])
def test_what_it_says_to_do_heals(patient, check):
    """The SQL of the advice, run as it stands, makes the check well again."""
    patient.run(DAMAGE[check])
    patient.run(patient.findings()[check].fix)
    assert patient.findings()[check].status == "ok"


def test_roles_with_more_than_they_should_have_are_found(patient, login):
    """Attributes and memberships of the two roles fail, and the advice takes them away."""
    try:
        patient.run(f"ALTER ROLE pgrecall_app BYPASSRLS CREATEDB; GRANT {login} TO pgrecall_maintenance")
        found = patient.findings()["roles"]
        assert found.status == "fail"
        assert "pgrecall_app has BYPASSRLS, CREATEDB" in found.found
        assert f"pgrecall_maintenance is a member of {login}" in found.found
        patient.run(found.fix)
        assert patient.findings()["roles"].status == "ok"
    finally:
        patient.run(f"ALTER ROLE pgrecall_app NOBYPASSRLS NOCREATEDB; REVOKE {login} FROM pgrecall_maintenance")


def test_a_schema_of_pgvector_that_a_role_may_not_use_is_found(new_database, admin_url):
    """Without USAGE there no vector can be searched or written; the advice opens it."""
    url = new_database()
    patient = Patient(url)
    patient.run("CREATE SCHEMA extensions; CREATE EXTENSION vector SCHEMA extensions")
    migrate.upgrade(url)
    patient.run(LOGINS)
    assert patient.findings()["roles"].status == "ok"
    patient.run("REVOKE USAGE ON SCHEMA extensions FROM pgrecall_app")
    found = patient.findings()["roles"]
    assert found.status == "fail" and "pgrecall_app may not use schema extensions" in found.found
    patient.run(found.fix)
    assert patient.findings()["roles"].status == "ok"


def test_a_superuser_is_for_development_only(patient):
    """As the application's login a superuser fails, and only warns where the database is marked as development."""
    assert patient.findings(patient.url)["login"].status == "fail"
    patient.run(f"ALTER DATABASE \"{patient.url.database}\" SET pgrecall.environment = 'development'")
    found = patient.findings(patient.url)["login"]
    assert found.status == "warn" and "superuser" in found.found


POWERS = {
    "maintenance": ("GRANT pgrecall_maintenance TO {} WITH INHERIT FALSE, SET TRUE", "may act as pgrecall_maintenance"),
    "maintenance by admin": (
        "GRANT pgrecall_maintenance TO {} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE",
        "may act as pgrecall_maintenance",
    ),
    "owner": ("ALTER TABLE pgrecall.chunks OWNER TO {}", "may act as the tables' owner"),
    "bypass": ("ALTER ROLE {} BYPASSRLS", "bypasses row-level security"),
    "replication": ("ALTER ROLE {} REPLICATION", "may copy the whole server"),
    "server programs": ("GRANT pg_execute_server_program TO {}", "may act as pg_execute_server_program"),
}


@pytest.mark.parametrize("power", POWERS)
def test_an_application_login_that_could_reach_more_fails(patient, login, power):
    """A login that may act as more than pgrecall_app is named with what it could become."""
    patient.run(f"GRANT pgrecall_app TO {login} WITH INHERIT FALSE, SET TRUE")
    url = patient.url.set(username=login)
    assert patient.findings(url)["login"].status == "ok"
    patient.run(POWERS[power][0].format(login))
    found = patient.findings(url)["login"]
    assert found.status == "fail" and POWERS[power][1] in found.found and login in found.found


def test_a_login_without_the_role_gets_the_grant_to_run(patient, login):
    """A login that may not act as pgrecall_app fails without a crash, and the first advice heals it."""
    url = patient.url.set(username=login)
    found = patient.findings(url)
    assert found["login"].status == "fail" and found["revision"].status == "fail"
    patient.run(found["login"].fix)
    assert {f.status for f in patient.findings(url).values()} == {"ok"}


def test_the_maintenance_login_is_looked_at_too(patient, login):
    """A login for maintenance that may not act so, or that can't be reached, fails."""
    found = patient.findings(maintenance_url=patient.url.set(username=login))["maintenance login"]
    assert found.status == "fail"
    patient.run(found.fix)
    assert patient.findings(maintenance_url=patient.url.set(username=login))["maintenance login"].status == "ok"
    gone = patient.findings(maintenance_url=patient.url.set(username="nobody_at_all"))["maintenance login"]
    assert gone.status == "fail" and "nobody_at_all" in gone.found


def test_an_empty_database_needs_an_upgrade(new_database):
    """Before the first migration the doctor says what is missing and stops there."""
    url = new_database()
    found = Patient(url).findings(url, maintenance_url=None)
    assert found["revision"].fix == "pgrecall db upgrade" and found["pgvector"].status == "fail"
    assert "drift" not in found


def test_tables_that_were_never_analyzed_are_reported(patient):
    """A large table without statistics warns; ANALYZE, as advised, settles it."""
    patient.run("ALTER TABLE pgrecall.tenants SET (autovacuum_enabled = off)")
    patient.run("INSERT INTO pgrecall.tenants SELECT 't' || n FROM generate_series(1, 11000) n")
    patient.run("SELECT pg_stat_force_next_flush()")
    found = patient.findings()["statistics"]
    assert found.status == "warn" and "tenants" in found.found
    patient.run(found.fix.split(";")[0])
    patient.run("SELECT pg_stat_force_next_flush()")
    assert patient.findings()["statistics"].status == "ok"


VERSIONS = [
    # installed, on 64 bits, the worst status, what is named
    ("0.5.1", True, "fail", "halfvec"),
    ("0.7.4", True, "fail", "CVE-2026-3172"),
    ("0.8.1", True, "fail", "CVE-2026-3172"),
    ("0.8.2", True, "warn", "993"),
    ("0.8.3", True, "warn", "993"),
    ("0.8.4", True, "ok", "0.8.4"),
    ("0.8.5", True, "ok", "0.8.5"),
    ("0.8.5", False, "fail", "CVE-2026-18022"),
    ("0.8.6", False, "ok", "0.8.6"),
    ("0.10.0", True, "ok", "0.10.0"),
    (None, True, "fail", "not installed"),
]


@pytest.mark.parametrize(("installed", "bits_64", "worst", "named"), VERSIONS)
def test_each_version_of_pgvector_is_judged_by_its_advisories(installed, bits_64, worst, named):
    """A version has the faults whose range it lies in, and no others; the advice says where to go."""
    found = doctor.check_pgvector(installed, "0.8.1", bits_64=bits_64)
    [most] = [f for f in found if f.status == worst]
    assert named in most.found and (worst == "ok") == (not most.fix)
    assert not any(f.status == "fail" for f in found) or worst == "fail"


def test_the_advice_depends_on_what_the_server_has():
    """Where the server's files are new enough an ALTER EXTENSION is all; else they come first."""
    [new, *_] = doctor.check_pgvector("0.8.1", "0.8.5")
    [old, *_] = doctor.check_pgvector("0.8.1", "0.8.1")
    assert new.fix == "ALTER EXTENSION vector UPDATE;" and "install pgvector 0.8.2" in old.fix
    assert all(a.first < a.fixed for a in ADVISORIES)


def test_the_numbers_to_watch_are_numbers(db, tenant_id, space):
    """Metrics are plain numbers that follow the rows, for any login."""
    with db.backend.engines.sync_gate().bare() as tx:
        tx.begin()
        found = doctor.metrics(db)
    assert 0 < found["connections_used"] < found["connections_max"]
    assert found["longest_transaction_seconds"] > 0 and found["oldest_prepared_transaction_seconds"] is None
    assert found["database_bytes"] > 1_000_000
    assert {"chunks", "chunk_vectors", "tenants"} <= set(found["tables"])
    assert all(0 <= t["dead_share"] <= 1 and t["rows"] >= 0 and t["bytes"] > 0 for t in found["tables"].values())
