"""The ragas backend ``pgrecall``: stores ragas' datasets and experiments in a tenant's tables.

Dataset("questions", backend="pgrecall", tenant="acme")   # PGRECALL_URL, or url=…, or database=…
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from ragas.backends.base import BaseBackend

from pgrecall.errors import InvalidInput, NotFound
from pgrecall.evaluation.ragas_metrics import import_ragas
from pgrecall.evaluation.store import Evaluations
from pgrecall.stores.connect import connect
from pgrecall.stores.database import Database

import_ragas()  # turns telemetry off for callers of ragas' own Dataset, too

#: Types that JSON lacks are stored as ``{"$type": name, "value": text}`` and restored on reading.
_TYPES: dict[str, tuple[type, Any, Any]] = {
    "datetime": (datetime, datetime.isoformat, datetime.fromisoformat),
    "date": (date, date.isoformat, date.fromisoformat),
    "time": (time, time.isoformat, time.fromisoformat),
    "timedelta": (timedelta, lambda value: repr(value.total_seconds()), lambda text: timedelta(seconds=float(text))),
    "decimal": (Decimal, str, Decimal),
    "uuid": (UUID, str, UUID),
    "bytes": (bytes, bytes.hex, bytes.fromhex),
}
_MARK = "$type"


def pack(value: Any) -> Any:
    """A value as JSON that `unpack` restores, types included. Unknown types are left for the JSON encoder to refuse."""
    if isinstance(value, dict):
        packed = {key: pack(item) for key, item in value.items()}
        return {_MARK: "dict", "value": packed} if _MARK in value else packed
    if isinstance(value, tuple | set | frozenset):
        return {_MARK: type(value).__name__, "value": [pack(item) for item in value]}
    if isinstance(value, list):
        return [pack(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return {_MARK: "float", "value": repr(value)}
    for name, (kind, write, _) in _TYPES.items():
        if type(value) is kind:
            return {_MARK: name, "value": write(value)}
    return value


def unpack(value: Any) -> Any:
    """The value that `pack` was called with."""
    if isinstance(value, list):
        return [unpack(item) for item in value]
    if not isinstance(value, dict):
        return value
    if _MARK not in value:
        return {key: unpack(item) for key, item in value.items()}
    name, inner = value[_MARK], value["value"]
    if name == "dict":
        return {key: unpack(item) for key, item in inner.items()}
    if name == "float":
        return float(inner)
    if name in ("tuple", "set", "frozenset"):
        kinds: dict[str, Any] = {"tuple": tuple, "set": set, "frozenset": frozenset}
        return kinds[name](unpack(item) for item in inner)
    return _TYPES[name][2](inner)


class PgRecallBackend(BaseBackend):
    """The datasets and experiments of one tenant, for ragas.

    Pass an open `pgrecall.Database` as `database`, which stays open, or `url` and `options` as for `pgrecall.connect`.
    Rows are returned as they were saved: in their order, and with types that JSON lacks (dates, times, decimals, UUIDs,
    bytes, tuples, sets, NaN).
    """

    def __init__(
        self, tenant: str, *, database: Database | None = None, url: str | None = None, **options: Any
    ) -> None:
        if database is not None and (url is not None or options):
            raise InvalidInput("both database= and url= or options were given; expected one of them")
        self._borrowed = database is not None
        self._database = database if database is not None else connect(url, **options)
        self._kept = Evaluations(self._database.tenant(tenant))

    def __repr__(self) -> str:
        return f"PgRecallBackend(tenant={self._kept.tenant_id!r})"

    def close(self) -> None:
        """Close the database, unless it was passed in."""
        if not self._borrowed:
            self._database.close()

    def _load(self, kind: str, name: str) -> list[dict[str, Any]]:
        try:
            return [unpack(record) for record in self._kept.records(kind, name)]
        except NotFound as exc:
            raise FileNotFoundError(f"{exc} in tenant {self._kept.tenant_id!r}") from exc

    def _save(self, kind: str, name: str, data: Sequence[dict[str, Any]]) -> None:
        self._kept.save_records(kind, name, [pack(record) for record in data])

    def load_dataset(self, name: str) -> list[dict[str, Any]]:
        """The rows of a dataset. Raises FileNotFoundError, as ragas expects."""
        return self._load("datasets", name)

    def load_experiment(self, name: str) -> list[dict[str, Any]]:
        """The rows of an experiment. Raises FileNotFoundError, as ragas expects."""
        return self._load("experiments", name)

    def save_dataset(self, name: str, data: list[dict[str, Any]], data_model: Any = None) -> None:
        """Save exactly these rows under the name."""
        self._save("datasets", name, data)

    def save_experiment(self, name: str, data: list[dict[str, Any]], data_model: Any = None) -> None:
        """Save exactly these rows under the name."""
        self._save("experiments", name, data)

    def list_datasets(self) -> list[str]:
        """The names of the tenant's datasets."""
        return self._kept.record_names("datasets")

    def list_experiments(self) -> list[str]:
        """The names of the tenant's experiments."""
        return self._kept.record_names("experiments")
