"""What only an owner may do, from Python: dropping a space, marking a database and resetting it."""

from __future__ import annotations

import asyncio

import pytest

import pgrecall
from pgrecall import ConfigurationError, EmbedSpace, Fact, InvalidInput, NotFound, Refused
from pgrecall.admin import migrate
from pgrecall.types import SpaceUse
from support.data import chunks

ONE = EmbedSpace("test", "one", 8)


@pytest.fixture
def own(new_database):
    """A database of the test's own, opened by its owner."""
    url = new_database()
    migrate.upgrade(url)
    with pgrecall.connect(url, admin_url=url) as db:
        yield db


def test_a_space_is_dropped_when_nothing_uses_it(own):
    """A collection's and a memory's is kept, and both are counted; from an event loop too."""
    tenant = own.tenant("acme")
    tenant.vectors("handbook", ONE).upsert(chunks(3))
    [used] = [info.id for info in own.list_spaces()]
    tenant.memory(actor="test", space=ONE).put_fact(Fact(None, "k", "k", "v", namespace=("n",), embedding=[1.0] * 8))
    assert own.space_use() == asyncio.run(own.aspace_use()) == {used: SpaceUse(1, 1)}
    with pytest.raises(Refused, match="used by 1 collection and 1 tenant's memory"):
        own.drop_space(used)
    other = own.add_space(EmbedSpace("test", "other", 8))
    assert asyncio.run(own.adrop_space(other)) == EmbedSpace("test", "other", 8)
    with pytest.raises(NotFound, match="list them with"):
        own.drop_space(other)
    assert own.add_space(EmbedSpace("test", "third", 8)) == other  # what the process remembered is forgotten


def test_a_reset_needs_the_mark_and_leaves_empty_tables(own):
    """The open database goes on working, with what it remembered of the old tables forgotten."""
    own.tenant("acme").vectors("handbook", ONE).upsert(chunks(3))
    with pytest.raises(Refused, match="not marked as development"):
        own.reset()
    name = own.mark("development")
    assert own.reset() == migrate.head()
    assert (own.list_spaces(), own.list_tenants()) == ([], [])
    own.tenant("acme").vectors("handbook", ONE).upsert(chunks(2))
    assert own.tenant("acme").vectors("handbook", ONE).count() == 2
    assert asyncio.run(own.amark("production")) == name
    with pytest.raises(Refused):
        asyncio.run(own.areset())


def test_what_is_wrong_is_said_before_anything_is_done(own, app_url):
    """An unknown environment, an unknown owner, and an atomic block."""
    with pytest.raises(InvalidInput, match="expected 'development' or 'production'"):
        own.mark("staging")
    with own.tenant("acme").atomic(), pytest.raises(ConfigurationError, match="after the block"):
        own.reset()
    with pgrecall.connect(app_url) as db, pytest.raises(ConfigurationError, match="PGRECALL_ADMIN_URL"):
        db.drop_space(1)
