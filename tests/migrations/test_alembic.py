"""Alembic's own tools: its command line, SQL scripts for an administrator, and an application's own Alembic."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import CommandLine, Config

from conftest import as_dsn
from pgrecall import schema
from pgrecall.admin import drift, migrate

REPOSITORY = Path(__file__).resolve().parents[2]


def test_the_revisions_of_an_editable_install_are_those_of_the_repository():
    """One resolver finds them here and in a wheel (tests/packaging)."""
    assert migrate.script_location() in (REPOSITORY / "migrations", Path(migrate.__file__).parent / "migrations")


@pytest.fixture
def alembic(tmp_path):
    """Run Alembic's own command line on our revisions, as with an alembic.ini of one's own."""
    ini = tmp_path / "alembic.ini"
    ini.write_text(f"[alembic]\nscript_location = {migrate.script_location()}\npath_separator = os\n")
    return lambda *arguments: CommandLine("alembic").main(["-c", str(ini), *arguments])


@pytest.mark.parametrize("variable", ["PGRECALL_ADMIN_URL", "PGRECALL_URL"])
def test_alembics_command_line_works(new_database, run, alembic, monkeypatch, variable):
    """It takes the database from the environment, and its own check finds no difference from the tables we declare."""
    url = new_database()
    run(url, "CREATE TABLE orders (id int PRIMARY KEY)")
    monkeypatch.delenv("PGRECALL_ADMIN_URL", raising=False)
    # As people write it, and not as SQLAlchemy does.
    monkeypatch.setenv(variable, as_dsn(url))
    alembic("upgrade", "head")
    migrate.check(url)
    alembic("check")
    alembic("downgrade", "base")
    assert run(url, "SELECT to_regclass('pgrecall.tenants') IS NULL, to_regclass('orders') IS NULL") == [(True, False)]


def test_alembics_check_sees_a_missing_column(new_database, run, alembic, monkeypatch, capsys):
    """That its check is clean means something: it compares our tables, wherever pgvector lives."""
    url = new_database()
    run(url, 'CREATE SCHEMA "Extensions"; CREATE EXTENSION vector SCHEMA "Extensions"')
    monkeypatch.setenv("PGRECALL_ADMIN_URL", as_dsn(url))
    alembic("upgrade", "head")
    alembic("check")
    run(url, "ALTER TABLE pgrecall.documents DROP COLUMN uri")
    with pytest.raises(SystemExit):
        alembic("check")
    assert "add_column" in capsys.readouterr().out


def test_alembics_command_line_asks_for_a_database(alembic, monkeypatch):
    """Without one in the environment it says what to set."""
    monkeypatch.delenv("PGRECALL_ADMIN_URL", raising=False)
    monkeypatch.delenv("PGRECALL_URL", raising=False)
    with pytest.raises(SystemExit, match="PGRECALL_ADMIN_URL"):
        alembic("upgrade", "head")


def test_the_sql_script_makes_what_an_upgrade_makes(new_database, dump, program):
    """An administrator may read it and run it with psql, up and down; no percent sign is printed twice."""
    online, offline = new_database(), new_database()
    migrate.upgrade(online)
    for script in (migrate.sql(), migrate.sql(down=True)):
        assert "%%" not in script
        program("psql", offline, "--no-psqlrc", "--set=ON_ERROR_STOP=1", "--quiet", given=script)
        if script == migrate.sql():
            assert dump(offline) == dump(online)
            migrate.check(offline)
    migrate.downgrade(online, "base")
    assert dump(offline) == dump(online)
    assert migrate.upgrade(offline) == (None, schema.REVISION)


APPLICATION_ENV = """
import sqlalchemy as sa
from alembic import context

metadata = sa.MetaData()
sa.Table("orders", metadata, sa.Column("id", sa.Integer, primary_key=True))
engine = sa.create_engine(context.config.attributes["url"], poolclass=sa.NullPool)
with engine.connect() as connection:
    context.configure(connection=connection, target_metadata=metadata)
    with context.begin_transaction():
        context.run_migrations()
"""
APPLICATION_REVISION = """
import sqlalchemy as sa
from alembic import op

revision, down_revision = "a1", None

def upgrade():
    op.create_table("orders", sa.Column("id", sa.Integer, primary_key=True))

def downgrade():
    op.drop_table("orders")
"""


@pytest.fixture
def application(tmp_path):
    """An application's own Alembic, in the state that `alembic init` leaves it: schema public, default options."""
    (tmp_path / "versions").mkdir()
    (tmp_path / "env.py").write_text(APPLICATION_ENV)
    (tmp_path / "versions" / "a1.py").write_text(APPLICATION_REVISION)
    config = Config()
    config.set_main_option("script_location", str(tmp_path))
    config.set_main_option("path_separator", "os")
    return config


@pytest.mark.parametrize("ours_first", [True, False])
def test_it_coexists_with_an_applications_own_alembic(new_database, run, application, alembic, monkeypatch, ours_first):
    """Neither sees the other's tables, versions or absence: both checks are clean, and each goes by itself."""
    url = application.attributes["url"] = new_database()
    monkeypatch.setenv("PGRECALL_ADMIN_URL", as_dsn(url))
    steps = [lambda: migrate.upgrade(url), lambda: command.upgrade(application, "head")]
    for step in steps if ours_first else reversed(steps):
        step()
    command.check(application)
    alembic("check")
    versions = (
        "SELECT (SELECT version_num FROM public.alembic_version), (SELECT version_num FROM pgrecall.alembic_version)"
    )
    assert run(url, versions) == [("a1", schema.REVISION)]
    command.downgrade(application, "base")
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        assert drift.differences(connection) == []
    command.upgrade(application, "head")
    migrate.downgrade(url, "base")
    command.check(application)
