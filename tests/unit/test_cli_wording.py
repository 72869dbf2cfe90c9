"""Errors of the library, as the command line words them."""

from __future__ import annotations

import pytest

from pgrecall.cli.wording import as_commands

MESSAGES = {
    "switch it on: tenant.set_text_config('h', 'english'), or pgrecall collections text h --config english":
        "switch it on: pgrecall collections text h --config english",
    "cancel it: tenant.cancel_reembed('h'), pgrecall collections reembed h -t a --cancel":
        "cancel it: pgrecall collections reembed h -t a --cancel",
    "first call tenant.cancel_reembed('h')": "first run pgrecall collections reembed h --cancel",
    "list them with db.list_spaces(), or pgrecall spaces list": "list them with pgrecall spaces list",
    "To use the name again, call create_tenant(name, reopen=True)":
        "To use the name again, run pgrecall tenants create NAME --reopen",
    "To store data about it again, call tenant.reopen_subject(subject)":
        "To store data about it again, run pgrecall subjects reopen SUBJECT",
    "Pass connect(…, admin_url=…), set PGRECALL_ADMIN_URL, or run `pgrecall maintain`.":
        "Pass --admin-url, set PGRECALL_ADMIN_URL, or run `pgrecall maintain`.",
    "unknown; call create_tenant first": "unknown; create it first: pgrecall tenants create",
    "its new space and model: tenant.vectors(name, space, embed=…). ": "its new space and model. ",
    "tenant.set_text_config('h', 'english') or pgrecall collections text h --config english":
        "pgrecall collections text h --config english",
    "by yours: tenant.reembed": "by yours: pgrecall collections reembed",
    "tenant 'acme' has no collection 'store.db'": "tenant 'acme' has no collection 'store.db'",
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_an_error_names_commands_instead_of_python_calls(message):
    """A user of the command line can do what the message says."""
    assert as_commands(message) == MESSAGES[message]
