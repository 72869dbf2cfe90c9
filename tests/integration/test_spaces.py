"""The registry of spaces: a number that a process remembers never stands for another space."""

from __future__ import annotations

import psycopg
import pytest

import pgrecall
from conftest import as_dsn
from pgrecall import EmbedSpace, EmbedSpaceMismatch
from support.data import chunks

ONE, OTHER = EmbedSpace("test", "one", 8), EmbedSpace("test", "other", 8)


@pytest.fixture
def registry(new_database):
    """A database of its own, and the owner's connection, who may take spaces out of the registry."""
    url = new_database(migrated=True)
    with pgrecall.connect(url) as db, psycopg.connect(as_dsn(url), autocommit=True) as owner:
        yield db, owner


def swap(owner: psycopg.Connection) -> None:
    """Space 1 is dropped, and its number goes to another one of the same length."""
    owner.execute("DELETE FROM pgrecall.embed_spaces WHERE id = 1")
    owner.execute(
        "INSERT INTO pgrecall.embed_spaces (id, provider, model, dim, distance)"
        " VALUES (1, 'test', 'other', 8, 'cosine')"
    )


def test_a_write_goes_by_what_the_space_is_not_by_its_remembered_number(registry):
    """After a drop and an addition behind a process' back, its new collection is still of the space that it named."""
    db, owner = registry
    assert db.add_space(ONE) == 1
    swap(owner)
    db.tenant("acme").vectors("handbook", ONE).upsert(chunks(3))
    info = db.tenant("acme").collection_info("handbook")
    assert info is not None and info.space == ONE
    assert [info.id for info in db.list_spaces() if info.space == ONE] == [2]


def test_a_read_looks_a_stale_number_up_again(registry):
    """A store that remembers the old number finds its rows under the new one, and never those of the other space."""
    db, owner = registry
    made = chunks(3)
    assert db.add_space(ONE) == 1
    swap(owner)
    with pgrecall.connect(owner_url(owner)) as elsewhere:
        elsewhere.tenant("acme").vectors("ours", ONE).upsert(made)
        elsewhere.tenant("acme").vectors("theirs", OTHER).upsert(made)
    assert db.tenant("acme").vectors("ours", ONE).query(made[1].embedding, 1)[0].chunk_id == "c0001"
    with pytest.raises(EmbedSpaceMismatch, match="test/other"):
        db.tenant("acme").vectors("theirs", ONE).query(made[1].embedding, 1)


def owner_url(owner: psycopg.Connection) -> str:
    """The URL behind a connection on a unix socket."""
    return f"postgresql://postgres@/{owner.info.dbname}?host={owner.info.host}&port={owner.info.port}"
