"""A database with pgrecall's schema can be taken to Postgres' next version."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
import sqlalchemy as sa

from pgrecall import embedded
from pgrecall.admin import migrate


@pytest.mark.slow("creates three servers")
def test_nothing_blocks_pg_upgrade(reachable, fill, run):
    """Postgres' own check, from a filled database of 16 to 18, finds nothing that could not be taken along."""
    home = reachable / "from-16"
    with embedded.start(home, version=16, settings={"fsync": "off"}) as old:
        url = sa.make_url(old.url)
        migrate.upgrade(url)
        fill(url)
        # Proof that the check looks: a type that does block it, as the schema's text_config was near to being.
        run(url, "CREATE TABLE blocks (language regconfig)")
    with embedded.start(home, version=18) as new:
        pass
    refused = check(old, new)
    assert "incompatible data type" in refused.stdout or "reg* data types" in refused.stdout, refused.stdout
    with embedded.start(home, version=16, settings={"fsync": "off"}) as old:
        run(url, "DROP TABLE blocks")
    accepted = check(old, new)
    assert accepted.returncode == 0, accepted.stdout
    assert "Clusters are compatible" in accepted.stdout


def check(old: embedded.EmbeddedServer, new: embedded.EmbeddedServer) -> subprocess.CompletedProcess[str]:
    """Run pg_upgrade as the servers' own user, who is never root."""
    owner = new.data.stat()
    # It leaves files where it runs, and a socket, whose path must be short.
    place = new.data.parent.parent / "u"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    shutil.chown(place, owner.st_uid, owner.st_gid)
    command = [
        str(embedded.binaries(18) / "pg_upgrade"),
        "--check",
        "--username=postgres",
        f"--old-bindir={embedded.binaries(16)}",
        f"--new-bindir={embedded.binaries(18)}",
        f"--old-datadir={old.data}",
        f"--new-datadir={new.data}",
        f"--socketdir={place}",
    ]
    identity = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    return subprocess.run(command, cwd=place, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"}, **identity)
