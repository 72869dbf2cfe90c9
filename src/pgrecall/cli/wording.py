"""Errors of the library name the Python call that helps; on the command line they name the command or option."""

from __future__ import annotations

import re

#: A call with its arguments, if the message names any.
_CALL = r"(?:\((?:[^()]|\([^()]*\))*\))?"
_NAME = r"\((?:name|'([^']*)')"

#: What a message says -> what a user of the command line does.
_COMMANDS = [
    (r"\bcall (?=(?:tenant|store|db)\.|create_tenant)", "run "),
    (rf": tenant\.vectors{_CALL}", ""),
    # A call, and the command that does the same: the command is enough.
    (rf"(?:tenant|store|db)\.\w+{_CALL},? (?:or )?(?=`?pgrecall )", ""),
    (r"`?(pgrecall [a-z -]+?)`?,? or (?:tenant|store|db)\.\w+" + _CALL, r"\1"),
    (r"connect\((?:…, )?(admin|maintenance)_url=…\)", r"--\1-url"),
    (r"(?:db\.)?create_tenant\(name, reopen=True\)", "pgrecall tenants create NAME --reopen"),
    (rf"(?:run )?(?:db\.)?create_tenant{_CALL} first", "create it first: pgrecall tenants create"),
    (r"tenant\.reopen_subject" + _CALL, "pgrecall subjects reopen SUBJECT"),
    (rf"tenant\.cancel_reembed{_NAME}\)", r"pgrecall collections reembed \1 --cancel"),
    (rf"tenant\.reembed\b{_CALL}", "pgrecall collections reembed"),
    (rf"tenant\.set_text_config{_NAME}, None\)", r"pgrecall collections text \1 --off"),
    (rf"tenant\.set_text_config{_NAME}, '(\w+)'\)", r"pgrecall collections text \1 --config \2"),
    (rf"tenant\.unindex_key\b{_CALL}", "pgrecall collections index-key --drop"),
    (rf"tenant\.index_key\b{_CALL}", "pgrecall collections index-key"),
    (rf"tenant\.collection(?:_info)?{_NAME}\)", r"pgrecall collections show \1"),
    (r"(?:store\.optimize|db\.maintain)\(\)", "pgrecall maintain"),
]


def as_commands(message: str) -> str:
    """The message with commands and options in place of Python calls."""
    for pattern, command in _COMMANDS:
        message = re.sub(pattern, command, message)
    return message
