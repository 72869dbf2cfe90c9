"""Checks of arguments: each returns the value as it is used from then on, or raises InvalidInput.

An error says what was given, what was expected, and what to do. Checks do no I/O, so a refused call has done nothing.
"""

from __future__ import annotations

import operator
from collections.abc import AsyncIterable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from numbers import Real
from typing import Any, Literal, TypeAlias

import numpy as np

from pgrecall.errors import InvalidInput, PgRecallError

#: Byte caps. A btree entry ends at 2,704 bytes, so longer ids could not be indexed; the schema checks the same.
MAX_NAME_BYTES = 200
MAX_ID_BYTES = 1_000
#: Bytes of a fact's (namespace, subject, kind, key) together, and 8 more for each label.
MAX_IDENTITY_BYTES = 2_000

#: What to do with a NUL character, which Postgres can't store: refuse the text, or drop the character.
OnNul: TypeAlias = Literal["error", "strip"]

#: A thousand years: a later time could not be read back as a datetime.
MAX_LIFETIME = timedelta(days=365_000)
_MAX_LABELS = 100
_MAX_REASON_BYTES = 10_000


def text_problem(text: str, *, nul_is_one: bool = True) -> str | None:
    """What keeps a text from being stored, or None. The one rule for NUL characters and lone surrogates."""
    if nul_is_one and "\0" in text:
        return f"a NUL character (U+0000) at index {text.index(chr(0))}, which Postgres can't store"
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as exc:
            return f"a lone surrogate (U+{ord(text[exc.start]):04X} at index {exc.start}), which is not valid Unicode"
    return None


def check_text(value: object, what: str, max_bytes: int) -> str:
    """A name or an id: a storable, non-empty string of at most `max_bytes` UTF-8 bytes."""
    if not isinstance(value, str):
        raise InvalidInput(f"{what} is {type(value).__name__} {value!r:.60}; expected a string")
    if not value:
        raise InvalidInput(f"{what} is empty; expected a non-empty string")
    if problem := text_problem(value):
        raise InvalidInput(f"{what} {value!r:.60} contains {problem}; remove it")
    size = len(value) if value.isascii() else len(value.encode())
    if size > max_bytes:
        raise InvalidInput(
            f"{what} {value!r:.60}… has {size:,} bytes; expected at most {max_bytes:,}. Hash it or shorten it"
        )
    return value


def storable_text(value: object, what: str, on_nul: OnNul | None = None) -> str:
    """A text of any length that Postgres can store, empty ones included. `on_nul` is None if the call has no such
    argument, and then the error does not advise it.
    """
    if not isinstance(value, str):
        raise InvalidInput(f"{what} is {type(value).__name__}; expected a string")
    if on_nul == "strip" and "\0" in value:
        value = value.replace("\0", "")
    if problem := text_problem(value):
        advice = ", or pass on_nul='strip'" if on_nul and "\0" in value else ""
        raise InvalidInput(f"{what} contains {problem}; remove it{advice}")
    return value


def check_on_nul(value: object) -> OnNul:
    """``"error"`` or ``"strip"``."""
    return one_of(value, ("error", "strip"), "on_nul")  # type: ignore[return-value]


def one_of(value: object, choices: Sequence[str], what: str) -> str:
    """One of some words."""
    if not isinstance(value, str) or value not in choices:
        *most, last = map(repr, choices)
        raise InvalidInput(f"{what} is {value!r:.60}; expected {', '.join(most)} or {last}")
    return value


def instance(
    value: object, kinds: type | tuple[type, ...], what: str, error: type[PgRecallError] = InvalidInput
) -> Any:
    """A value of one of the library's classes."""
    if not isinstance(value, kinds):
        names = [f"pgrecall.{kind.__name__}" for kind in (kinds if isinstance(kinds, tuple) else (kinds,))]
        raise error(f"{what} is {type(value).__name__}; expected {' or '.join(names)}")
    return value


def whole_number(value: object, what: str, at_least: int) -> int:
    """An integer, numpy's included, of at least `at_least`; one above 2^60 is taken as 2^60.

    The cap leaves room in a bigint for the small multiples of it that are fetched.
    """
    try:
        number = at_least - 1 if isinstance(value, bool | np.bool_) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = at_least - 1
    if number < at_least:
        raise InvalidInput(f"{what} is {value!r:.40}; expected a whole number of at least {at_least}")
    return int(min(number, 2**60))


def fraction(value: object, what: str, meaning: str = "") -> float:
    """A number from 0 to 1; `meaning` explains the ends in the error."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) <= 1:
        raise InvalidInput(f"{what} is {value!r:.40}; expected a number from 0 to 1{meaning and f' ({meaning})'}")
    return float(value)


def seconds(value: object, what: str) -> float:
    """A number of seconds, 0 or more."""
    if isinstance(value, bool) or not isinstance(value, Real) or not float(value) >= 0:
        raise InvalidInput(f"{what} is {value!r:.40}; expected a number of seconds, 0 or more")
    return float(value)


def moment(value: object, what: str) -> datetime:
    """A datetime with a time zone."""
    if not isinstance(value, datetime) or value.utcoffset() is None:
        raise InvalidInput(f"{what} is {value!r:.60}; expected a datetime with a time zone, such as datetime.now(UTC)")
    return value


def lifetime(value: object, what: str, *, at_least: float = 1.0) -> timedelta | None:
    """A timedelta or a number of seconds, from `at_least` seconds to a thousand years; None, for ever, stays None."""
    if value is None:
        return None
    span = value
    if isinstance(value, Real) and not isinstance(value, bool) and 0 <= float(value) <= MAX_LIFETIME.total_seconds():
        span = timedelta(seconds=float(value))
    if not isinstance(span, timedelta) or not timedelta(0) < span <= MAX_LIFETIME or span.total_seconds() < at_least:
        seconds = "1 second" if at_least == 1 else f"{at_least:g} seconds"
        least = f"at least {seconds}" if at_least else "more than 0 seconds"
        raise InvalidInput(
            f"{what} is {value!r:.60}; expected a timedelta or a number of seconds, {least} and at most "
            f"{MAX_LIFETIME.days:,} days"
        )
    return span


def id_list(ids: object, what: str) -> list[str]:
    """A collection of ids, in its order."""
    if isinstance(ids, str) or not isinstance(ids, Collection):
        raise InvalidInput(f"{what} is {type(ids).__name__} {ids!r:.60}; expected a list of ids")
    return [check_text(i, f"one of {what}", MAX_ID_BYTES) for i in ids]


def several(values: object, what: str, *, or_async: bool = False) -> None:
    """Refuse what is not an iterable of `what`, before any of it is read."""
    kinds = (Iterable, AsyncIterable) if or_async else Iterable
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, kinds):
        raise InvalidInput(
            f"{type(values).__name__} was given; expected an iterable of pgrecall.{what}, such as a list"
        )


def labels(path: object, what: str) -> tuple[str, ...]:
    """A path of labels, such as a namespace."""
    if isinstance(path, str) or not isinstance(path, Sequence):
        raise InvalidInput(f"{what} is {type(path).__name__} {path!r:.60}; expected a tuple of labels")
    if len(path) > _MAX_LABELS:
        raise InvalidInput(f"{what} has {len(path)} labels; expected at most {_MAX_LABELS}")
    return tuple(check_text(label, f"a label of {what}", MAX_IDENTITY_BYTES) for label in path)


def actor_name(actor: object) -> str:
    """Who acts, as the trail names it."""
    return check_text(actor, "actor", MAX_NAME_BYTES)


def reason_text(reason: object) -> str | None:
    """Why something is done, as the trail keeps it."""
    return None if reason is None else check_text(reason, "reason", _MAX_REASON_BYTES)
