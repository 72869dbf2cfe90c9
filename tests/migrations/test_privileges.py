"""Who may migrate, what an administrator must do first where a login may not, and who may run."""

from __future__ import annotations

import pytest

import pgrecall
from pgrecall import ConfigurationError, F, doctor
from pgrecall.admin import migrate
from support.data import chunks


def everyday_verbs_work(url):
    """Upsert, query and delete as this login."""
    with pgrecall.connect(url) as database:
        store = database.tenant("acme").vectors("handbook", pgrecall.EmbedSpace("test", "eight", 8))
        made = chunks(10)
        assert store.upsert(made).written == 10
        assert store.query(made[3].embedding, 1, F.n == 3)[0].chunk_id == "c0003"
        assert store.delete(["c0003"])["chunks"] == 1
        assert store.query(made[3].embedding, 1, F.n == 3) == []


def refusal(url):
    """The SQL that an upgrade asks an administrator for, exactly as the error prints it."""
    with pytest.raises(ConfigurationError, match=r"login .* lacks rights that this upgrade requires") as refused:
        migrate.upgrade(url)
    said = str(refused.value)
    assert f'An administrator must first run, in database "{url.database}":' in said
    return said.partition(":\n")[2]


def test_a_plain_createrole_owner_migrates_and_grants_itself_its_roles(new_owner, bare, run):
    """Postgres gives the maker of a role no right to act as it, so the migration takes it, and only that."""
    url = new_owner("owner", "CREATEROLE")
    run(bare.set(database=url.database), "CREATE EXTENSION vector")
    migrate.upgrade(url)
    migrate.check(url)
    member = """SELECT DISTINCT roleid::regrole::text FROM pg_auth_members
    WHERE member = 'owner'::regrole AND set_option AND NOT inherit_option ORDER BY 1"""
    assert run(url, member) == [("pgrecall_app",), ("pgrecall_maintenance",)]
    everyday_verbs_work(url)


def test_a_login_that_owns_nothing_runs_and_can_not_migrate(new_owner, bare, run):
    """The application needs membership of pgrecall_app and nothing else."""
    url = new_owner("owner", "CREATEROLE")
    run(bare.set(database=url.database), "CREATE EXTENSION vector")
    migrate.upgrade(url)
    run(url, "CREATE ROLE app LOGIN; GRANT pgrecall_app TO app WITH INHERIT FALSE, SET TRUE")
    app = url.set(username="app")
    everyday_verbs_work(app)
    with pytest.raises(ConfigurationError):
        migrate.downgrade(app, "base")
    migrate.check(url)


ROLE = "CREATE ROLE {} NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE NOREPLICATION;"
GRANT = "GRANT {} TO plain WITH INHERIT FALSE, SET TRUE;"
ROLES = [line.format(role) for role in ("pgrecall_app", "pgrecall_maintenance") for line in (ROLE, GRANT)]
GRANTS = ROLES[1::2]
MAKE_ROLES = "CREATE ROLE pgrecall_app; CREATE ROLE pgrecall_maintenance;"
ELSEWHERE = "CREATE SCHEMA extensions; CREATE EXTENSION vector SCHEMA extensions;"
USAGE = [f"GRANT USAGE ON SCHEMA extensions TO {role};" for role in ("pgrecall_app", "pgrecall_maintenance", "plain")]


@pytest.mark.parametrize(
    ("before", "owns", "asked"),
    [
        ("", True, [*ROLES, "CREATE EXTENSION vector SCHEMA public;"]),
        ("CREATE EXTENSION vector;", True, ROLES),
        (MAKE_ROLES, True, [*GRANTS, "CREATE EXTENSION vector SCHEMA public;"]),
        (f"{MAKE_ROLES} {' '.join(GRANTS)}", True, ["CREATE EXTENSION vector SCHEMA public;"]),
        (f"{ELSEWHERE} {MAKE_ROLES} {' '.join(GRANTS)}", True, USAGE),
        # USAGE without the right to pass it on: Postgres would only warn.
        (f"{ELSEWHERE} GRANT USAGE ON SCHEMA extensions TO plain;", True, [*ROLES, *USAGE[:2]]),
        (
            "",
            False,
            ["CREATE SCHEMA pgrecall AUTHORIZATION plain;", *ROLES, "CREATE EXTENSION vector SCHEMA public;"],
        ),
    ],
    ids=[
        "nothing",
        "roles",
        "grants and extension",
        "extension",
        "usage",
        "roles and usage",
        "not the owner",
    ],
)
def test_what_a_plain_owner_may_not_do_is_asked_of_an_administrator(new_owner, bare, run, before, owns, asked):
    """The error is the missing SQL, all of it and no more; run as printed, it makes the upgrade succeed."""
    url = new_owner("plain", owns=owns)
    admin = bare.set(database=url.database)
    if before:
        run(admin, before)
    statements = refusal(url)
    assert statements.splitlines() == asked
    assert run(admin, "SELECT to_regnamespace('pgrecall')") == [(None,)]
    run(admin, statements)
    migrate.upgrade(url)
    migrate.check(url)
    everyday_verbs_work(url)


def test_the_extension_may_live_in_another_schema(new_database, run):
    """Some hosts keep extensions aside: migration, store and drift check find pgvector there."""
    url = new_database()
    run(url, 'CREATE SCHEMA "Extensions"; CREATE EXTENSION vector SCHEMA "Extensions"')
    migrate.upgrade(url)
    migrate.check(url)
    everyday_verbs_work(url)


def test_a_login_named_like_the_schema_migrates(new_owner, run):
    """Postgres puts a login's own schema first in its search path, and an owner is likely to be so named."""
    url = new_owner("pgrecall", "SUPERUSER")
    migrate.upgrade(url)
    home = "SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname = 'vector'"
    assert run(url, "SELECT current_schema()::text") + run(url, home) == [("pgrecall",), ("public",)]
    migrate.check(url)
    everyday_verbs_work(url)


def test_without_a_schema_public_the_upgrade_says_what_to_name(new_database, run):
    """Where the extension shall live is not guessed."""
    url = new_database()
    run(url, "DROP SCHEMA public")
    with pytest.raises(ConfigurationError, match=r"no schema public .* CREATE EXTENSION vector SCHEMA"):
        migrate.upgrade(url)


# Each fits a call with an untyped literal, a name or a cast left out better than what Postgres itself has.
TRAPS = {
    "format": ["text, name", "text, name, name", "text, text", "text, text, text", "text, name, text"],
    "concat_ws": ["text, text, text", "text, text, text, text"],
    "quote_ident": ["name"],
    "array_to_string": ["text[], text"],
    "acldefault": ["text, oid"],
    "hashtextextended": ["text, int4"],
    "||": ["text[], text", "name, name", "name, text"],
    "=": ["name, varchar", "text, varchar", "varchar, varchar", "oid, regnamespace"],
    "#>>": ["jsonb, jsonb", "jsonb, text"],
}


def test_what_others_made_in_schema_public_never_runs(new_database, bare, run):
    """Where everybody may create there, as on servers upgraded from Postgres 14, no function of theirs is called."""
    url = new_database()
    run(url, "CREATE EXTENSION vector; GRANT CREATE ON SCHEMA public TO PUBLIC")
    run(url, "DO $$ BEGIN CREATE ROLE mallory LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
    mallory = url.set(username="mallory")
    for name, signatures in TRAPS.items():
        for number, signature in enumerate(signatures):
            function = name if name.isidentifier() else f"trap_{len(name)}_{ord(name[0])}_{number}"
            body = "LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'mallory runs as %', current_user; END $$"
            run(mallory, f"CREATE FUNCTION public.{function}({signature}) RETURNS bool {body}")
            if function != name:
                left, right = signature.split(", ")
                made = f"(leftarg = {left}, rightarg = {right}, function = public.{function})"
                run(mallory, f"CREATE OPERATOR public.{name} {made}")
    with pytest.raises(Exception, match="mallory runs as postgres"):
        run(url, "SELECT format('%s', current_user)")
    migrate.upgrade(url)
    migrate.check(url)
    everyday_verbs_work(url)
    with pgrecall.connect(url) as database:
        store = database.tenant("acme").vectors("handbook", pgrecall.EmbedSpace("test", "eight", 8))
        assert store.count(F.lang.like("d%")) == len(store.list_chunks(F.lang == "de")) == 3
        assert len(store.query([1.0] * 8, 3, F.n > 1)) == len(store.get(["c0001", "c0002", "c0005"])) == 3
        assert [f.found for f in doctor.diagnose(database) if f.check == "drift"] == ["none"]
