"""Every error pgrecall raises: one root, leaves by what the caller can do about it.

A message says what was found, what was expected, and the next step. Driver errors are wrapped in one
place (`driver.wrapped`), so that a caller never has to import psycopg to handle a failure.
"""


class PgRecallError(Exception):
    """Something went wrong in pgrecall."""


class InvalidInput(PgRecallError, ValueError):
    """A value can't be stored or asked for as it is: change the value."""


class FilterError(InvalidInput):
    """A metadata filter is malformed, unknown or too large."""


class InvalidEmbedding(InvalidInput):
    """A vector has the wrong length, or a value that a space can't hold."""


class EmbedSpaceMismatch(PgRecallError):
    """The collection's vectors were made by another embedding model than the one in hand."""


class FingerprintMismatch(EmbedSpaceMismatch):
    """The embedding model has the right name, but no longer produces the vectors it used to."""


class NotFound(PgRecallError, LookupError):
    """What the call names does not exist for this tenant."""


class UnknownTenant(NotFound):
    """The tenant was never created, and this database requires known tenants."""


class RunConflict(PgRecallError):
    """A run's state is not at the version that a change of it goes on from: read it, and decide again.

    `expected` is the version that the change was made from, `found` the one that is stored (None: no such run).
    """

    def __init__(self, message: str, *, expected: int | None = None, found: int | None = None) -> None:
        super().__init__(message)
        self.expected = expected
        self.found = found


class TenantErased(PgRecallError):
    """The tenant was deleted; a tombstone refuses late writers."""


class SubjectErased(PgRecallError):
    """What was held about the subject was erased; a tombstone refuses late writers."""


class ConfigurationError(PgRecallError):
    """The connection, its role or its settings do not allow this: change how pgrecall is set up."""


class MigrationRequired(ConfigurationError):
    """The database's schema is missing, older or newer than this version of pgrecall."""


class EmbeddedServerError(PgRecallError):
    """The embedded Postgres could not be installed, started or reached."""


class DatabaseError(PgRecallError):
    """Postgres refused a statement for a reason that pgrecall does not know better."""


class Unavailable(DatabaseError):
    """The connection was lost or never made: call again.

    Nothing of the call was kept, unless the connection was lost while COMMIT was under way; then nobody can tell, and
    calling again is right as well: every write here comes to the same result when it is repeated. But for what is added
    each time (a message without an id, a run's event), and for a run's put, then a RunConflict: look first.
    """


class RolledBack(PgRecallError):
    """An operation of an atomic block failed, so that nothing of the block is kept: run the whole block again."""


class Conflict(DatabaseError):
    """Concurrent transactions collided and retries ran out; nothing of the call was kept: call again."""
