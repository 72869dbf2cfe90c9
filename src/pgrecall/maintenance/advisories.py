"""Known faults of pgvector by version, which `doctor` reports."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple, TypeAlias

Version: TypeAlias = tuple[int, ...]

#: The first version with `halfvec`.
OLDEST_PGVECTOR = (0, 7, 0)
#: The first version whose parallel HNSW builds stay within their own memory.
PARALLEL_BUILD_FIXED = (0, 8, 2)


class Advisory(NamedTuple):
    """A fault of the versions from `first` up to, but not including, `fixed`."""

    name: str
    status: Literal["warn", "fail"]
    first: Version
    fixed: Version
    what: str
    only_32_bit: bool = False


#: As published in pgvector's issues 959, 1006, and 988 with 993.
ADVISORIES = (
    Advisory(
        "CVE-2026-3172", "fail", (0, 6, 0), PARALLEL_BUILD_FIXED,
        "a parallel HNSW build can leak other tables' data or crash the server",
    ),
    Advisory(
        "CVE-2026-18022", "fail", (0,), (0, 8, 6),
        "an IVFFlat build on a 32-bit server writes out of bounds", only_32_bit=True,
    ),
    Advisory(
        "pgvector issues 988 and 993", "warn", (0, 5, 0), (0, 8, 4),
        "a vacuum during many concurrent writes can damage an HNSW index, or fail on it",
    ),
)  # fmt: skip


def version(text: str) -> Version:
    """ "0.8.5" as (0, 8, 5)."""
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


def dotted(parts: Version) -> str:
    """(0, 8, 5) as "0.8.5"."""
    return ".".join(map(str, parts))


def faults(installed: str, *, bits_64: bool = True) -> list[Advisory]:
    """The advisories that apply to this version of pgvector on this kind of server."""
    has = version(installed)
    return [a for a in ADVISORIES if a.first <= has < a.fixed and not (a.only_32_bit and bits_64)]
