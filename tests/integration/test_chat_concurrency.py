"""Many who append to one chat at the same time: one order, every message once, each call's messages together."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from concurrent.futures import ThreadPoolExecutor

import pytest

import pgrecall
from pgrecall import Message


def in_order(messages, writers, calls, per_call=1):
    """Positions rise, times never fall, nothing is lost, and each writer's messages are in its own order."""
    positions = [m.position for m in messages]
    assert len(positions) == writers * calls * per_call
    assert all(a < b for a, b in itertools.pairwise(positions))
    assert all(a.created_at <= b.created_at for a, b in itertools.pairwise(messages))
    for writer in range(writers):
        own = [m.text for m in messages if m.name == f"w{writer}"]
        assert own == [f"{call}.{n}" for call in range(calls) for n in range(per_call)]


def append(chat, writer, calls, per_call=1):
    for call in range(calls):
        chat.append([Message("user", f"{call}.{n}", name=f"w{writer}") for n in range(per_call)])


def race(chat, writers, calls, per_call=1):
    with ThreadPoolExecutor(writers) as pool:
        list(pool.map(lambda writer: append(chat, writer, calls, per_call), range(writers)))


def test_eight_appenders_make_one_order(db, tenant_id):
    """Of a chat that does not exist yet either, whose first messages race to make it."""
    chat = db.tenant(tenant_id).chat("s")
    race(chat, 8, 25)
    in_order(chat.list_messages(), 8, 25)


def test_messages_of_one_call_are_not_torn_apart(db, tenant_id):
    """Messages of one call have consecutive positions even if others append at the same time."""
    chat = db.tenant(tenant_id).chat("s")
    race(chat, 4, 10, per_call=5)
    messages = chat.list_messages()
    in_order(messages, 4, 10, per_call=5)
    for at in range(0, len(messages), 5):
        assert len({m.name for m in messages[at : at + 5]}) == 1


@pytest.mark.soak("4,000 calls")
def test_eight_appenders_with_five_hundred_messages_each_lose_none(db, tenant_id):
    """4,000 calls: positions strictly rise, and each writer's messages are in its own order."""
    chat = db.tenant(tenant_id).chat("s")
    race(chat, 8, 500)
    in_order(chat.list_messages(), 8, 500)


def test_tasks_of_one_event_loop_make_one_order(app_url, tenant_id):
    """The asynchronous side as well."""

    async def work():
        async with pgrecall.connect(app_url) as db:
            chat = db.tenant(tenant_id).chat("s")

            async def writer(number):
                for call in range(10):
                    await chat.aappend(Message("user", f"{call}.0", name=f"w{number}"))

            await asyncio.gather(*(writer(number) for number in range(8)))
            return await chat.alist_messages()

    in_order(asyncio.run(work()), 8, 10)


def test_readers_see_the_old_list_or_the_new_one(db, tenant_id):
    """While a list is replaced, over and over, and appended to, nobody reads a part of one."""
    chat = db.tenant(tenant_id).chat("s")
    chat.replace([Message("user", "0")] * 5)
    with ThreadPoolExecutor(3) as pool:
        writing = [
            pool.submit(lambda n=n: [chat.replace([Message("user", f"{n}.{i}")] * 5) for i in range(20)]) for n in "ab"
        ]
        while not all(future.done() for future in writing):
            seen = [m.text for m in chat.list_messages()]
            assert len(seen) == 5 and len(set(seen)) == 1
        for future in writing:
            future.result()


def test_writers_of_every_kind_meet_without_a_deadlock(db, tenant_id):
    """Appending, popping, archiving, clearing, dropping and searching at once; what is left is in order."""
    chat = db.tenant(tenant_id).chat("s")
    chat.append([Message("user", f"m{n}") for n in range(20)])

    def drop():
        with contextlib.suppress(pgrecall.NotFound):
            chat.drop()

    verbs = [
        lambda: chat.append(Message("user", "x", id="same")),
        lambda: chat.append([Message("user", "y") for _ in range(3)]),
        chat.pop,
        lambda: chat.archive_oldest(2),
        lambda: chat.delete_oldest(1),
        lambda: chat.clear("archived"),
        lambda: chat.search("x"),
        lambda: chat.window(5),
        drop,
    ]
    with ThreadPoolExecutor(len(verbs)) as pool:
        list(pool.map(lambda verb: [verb() for _ in range(15)], verbs))
    positions = [m.position for m in chat.list_messages(status=None)]
    assert positions == sorted(set(positions))
