"""Every error that pgrecall raises: one base class, with subclasses by what the caller can do about it.

A message says what was found, what was expected, and what to do. Driver errors are wrapped in one place
(`driver.wrapped`), so that callers never need to import psycopg to handle a failure.
"""


class PgRecallError(Exception):
    """Base class of all errors that pgrecall raises."""


class InvalidInput(PgRecallError, ValueError):
    """A value cannot be stored or queried as given: change the value."""


class FilterError(InvalidInput):
    """A metadata filter is malformed, unknown or too large."""


class InvalidEmbedding(InvalidInput):
    """A vector has the wrong length, or a value that its space cannot store."""


class EmbedSpaceMismatch(PgRecallError):
    """The stored vectors were made by a different embedding model than the one in use."""


class FingerprintMismatch(EmbedSpaceMismatch):
    """The embedding model has the expected name, but no longer produces the same vectors."""


class NotFound(PgRecallError, LookupError):
    """The requested object does not exist for this tenant."""


class UnknownTenant(NotFound):
    """The tenant was never created, and this database does not create tenants on first write."""


class RunConflict(PgRecallError):
    """A run's state has changed since it was read: read it again and reapply the change.

    `expected` is the version that the change was based on, `found` the stored version (None if the run does not
    exist).
    """

    def __init__(self, message: str, *, expected: int | None = None, found: int | None = None) -> None:
        super().__init__(message)
        self.expected = expected
        self.found = found


class TenantErased(PgRecallError):
    """The tenant was deleted. Its tombstone rejects later writes."""


class SubjectErased(PgRecallError):
    """The subject's data was erased. Its tombstone rejects later writes."""


class Refused(PgRecallError):
    """Nothing was done, because the call would destroy data that is in use or protected."""


class ConfigurationError(PgRecallError):
    """The connection, its role or its settings do not allow the operation: change the configuration."""


class MigrationRequired(ConfigurationError):
    """The database schema is missing, or is older or newer than this version of pgrecall expects."""


class EmbeddedServerError(PgRecallError):
    """The embedded Postgres could not be installed, started or reached."""


class DatabaseError(PgRecallError):
    """Postgres rejected a statement, and no more specific error applies."""


class Unavailable(DatabaseError):
    """The connection was lost or could not be made: repeat the call.

    Nothing was stored, unless the connection was lost during COMMIT. In that case the outcome is unknown. Repeating the
    call is still safe, because writes are idempotent. There are two exceptions, for which you should read first: writes
    that append (a message without an id, a run's event) may append twice, and a run's put may raise RunConflict.
    """


class RolledBack(PgRecallError):
    """An operation of an atomic block failed, so the whole block was rolled back: run the whole block again."""


class Conflict(DatabaseError):
    """Concurrent transactions conflicted and all retries failed. Nothing was stored: repeat the call."""
