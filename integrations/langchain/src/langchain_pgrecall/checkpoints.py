"""LangGraph's own checkpoints in the same database: threads are deleted with the person or tenant they belong to."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from pgrecall import Erasure

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver

#: Keys of a run's metadata, by which its thread is found.
TENANT: Final = "pgrecall_tenant"
SUBJECT: Final = "pgrecall_subject"


def of_person(tenant: str, subject: str) -> dict[str, str]:
    """Return metadata that ties a graph's runs to a person: ``config = {"metadata": of_person("acme", "ana"), …}``."""
    return {TENANT: tenant, SUBJECT: subject}


def erase_threads(saver: BaseCheckpointSaver[str]) -> Callable[[Erasure], None]:
    """Return a hook for `Database.on_erase`, which deletes the threads of an erased subject or tenant.

    Threads are found by the metadata of `of_person`, which their runs must carry. The saver must be synchronous, such
    as LangGraph's PostgresSaver. Give each database one hook.
    """

    def hook(erased: Erasure) -> None:
        wanted = {TENANT: erased.tenant_id}
        if erased.subject is not None:
            wanted[SUBJECT] = erased.subject
        threads = {found.config["configurable"]["thread_id"] for found in saver.list(None, filter=wanted)}
        for thread in sorted(threads):
            saver.delete_thread(thread)

    return hook
