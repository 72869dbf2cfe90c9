"""Chats and their messages; runs with their events and evidence."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, TSVECTOR

from pgrecall.schema.base import ID, bytes_cap, created_at, metadata

_TIME = sa.TIMESTAMP(timezone=True)
_EMPTY = sa.text("'{}'::jsonb")


def _tenant() -> sa.Column[str]:
    return sa.Column("tenant_id", sa.Text, primary_key=True)


def _updated_at() -> sa.Column[object]:
    return sa.Column("updated_at", _TIME, nullable=False, server_default=sa.text("now()"))


def _expiry_index(table: str) -> sa.Index:
    """The index for sweeps, which work tenant by tenant."""
    return sa.Index(
        f"{table}_expiry_idx", "tenant_id", "expires_at", postgresql_where=sa.text("expires_at IS NOT NULL")
    )


def _subject_index(table: str) -> sa.Index:
    return sa.Index(f"{table}_subject_idx", "tenant_id", "subject", postgresql_where=sa.text("subject IS NOT NULL"))


def _child_of(parent: str, name: str, *columns: str) -> sa.ForeignKeyConstraint:
    keys = ["tenant_id", *columns]
    return sa.ForeignKeyConstraint(keys, [f"pgrecall.{parent}.{key}" for key in keys], name=name, ondelete="CASCADE")


chat_sessions = sa.Table(
    "chat_sessions",
    metadata,
    _tenant(),
    sa.Column("session_id", ID, primary_key=True),
    sa.Column("subject", ID),
    # Appends reserve positions here and so lock the row, which makes the order total.
    sa.Column("next_position", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("text_config", sa.Text, nullable=False, server_default=sa.text("'simple'::text")),
    sa.Column("metadata", JSONB, nullable=False, server_default=_EMPTY),
    sa.Column("ttl", sa.Interval),
    sa.Column("message_ttl", sa.Interval),
    sa.Column("expires_at", _TIME),
    created_at(),
    _updated_at(),
    bytes_cap("session_id", 1000, "chat_sessions_id_length"),
    bytes_cap("subject", 1000, "chat_sessions_subject_length"),
    _subject_index("chat_sessions"),
    _expiry_index("chat_sessions"),
)

chat_messages = sa.Table(
    "chat_messages",
    metadata,
    _tenant(),
    sa.Column("session_id", ID, primary_key=True),
    sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
    # Every message has one. Its index is partial, so that no foreign key's check uses it instead of the primary key.
    sa.Column("message_id", ID),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("name", sa.Text),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("content", JSONB),
    sa.Column("tool_calls", JSONB),
    sa.Column("tool_call_id", sa.Text),
    sa.Column("metadata", JSONB, nullable=False, server_default=_EMPTY),
    sa.Column("payload", JSONB),
    sa.Column("framework", sa.Text),
    sa.Column("status", sa.Text, nullable=False, server_default=sa.text("'active'::text")),
    sa.Column("text_search", TSVECTOR),
    sa.Column("expires_at", _TIME),
    created_at(),
    _child_of("chat_sessions", "chat_messages_session_fkey", "session_id"),
    bytes_cap("message_id", 1000, "chat_messages_id_length"),
    sa.CheckConstraint(
        "role = ANY (ARRAY['system'::text, 'developer'::text, 'user'::text, 'assistant'::text, 'tool'::text, "
        "'function'::text, 'other'::text])",
        name="chat_messages_role",
    ),
    sa.CheckConstraint("status = ANY (ARRAY['active'::text, 'archived'::text])", name="chat_messages_status"),
    sa.Index(
        "chat_messages_id_key",
        "tenant_id",
        "session_id",
        "message_id",
        unique=True,
        postgresql_where=sa.text("message_id IS NOT NULL"),
    ),
    sa.Index(
        "chat_messages_text_search_idx",
        "text_search",
        postgresql_using="gin",
        postgresql_where=sa.text("text_search IS NOT NULL"),
    ),
    _expiry_index("chat_messages"),
)

runs = sa.Table(
    "runs",
    metadata,
    _tenant(),
    sa.Column("run_id", ID, primary_key=True),
    sa.Column("subject", ID),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("state", JSONB, nullable=False, server_default=_EMPTY),
    # 0 if events or evidence came before the first state.
    sa.Column("state_version", sa.BigInteger, nullable=False, server_default="0"),
    # Events and retrievals share one counter, so everything in a run has one order.
    sa.Column("next_seq", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("metadata", JSONB, nullable=False, server_default=_EMPTY),
    sa.Column("expires_at", _TIME),
    created_at(),
    _updated_at(),
    bytes_cap("run_id", 1000, "runs_id_length"),
    bytes_cap("subject", 1000, "runs_subject_length"),
    bytes_cap("status", 200, "runs_status_length"),
    _subject_index("runs"),
    _expiry_index("runs"),
)

run_events = sa.Table(
    "run_events",
    metadata,
    _tenant(),
    sa.Column("run_id", ID, primary_key=True),
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("data", JSONB, nullable=False, server_default=_EMPTY),
    created_at(),
    _child_of("runs", "run_events_run_fkey", "run_id"),
    bytes_cap("kind", 200, "run_events_kind_length"),
)

# The space's properties instead of its number, which may later be given to another space.
run_retrievals = sa.Table(
    "run_retrievals",
    metadata,
    _tenant(),
    sa.Column("run_id", ID, primary_key=True),
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("collection", sa.Text, nullable=False),
    sa.Column("provider", sa.Text),
    sa.Column("model", sa.Text),
    sa.Column("dim", sa.Integer),
    sa.Column("distance", sa.Text),
    sa.Column("query_hash", sa.LargeBinary, nullable=False),
    sa.Column("query_kind", sa.Text, nullable=False),
    created_at(),
    _child_of("runs", "run_retrievals_run_fkey", "run_id"),
    sa.CheckConstraint("query_kind = ANY (ARRAY['text'::text, 'vector'::text])", name="run_retrievals_query_kind"),
)

run_evidence = sa.Table(
    "run_evidence",
    metadata,
    _tenant(),
    sa.Column("run_id", ID, primary_key=True),
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("rank", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("chunk_id", ID, nullable=False),
    sa.Column("doc_id", ID),
    sa.Column("content_hash", sa.LargeBinary, nullable=False),
    sa.Column("score", sa.Double, nullable=False),
    sa.Column("distance", sa.Double),
    _child_of("run_retrievals", "run_evidence_retrieval_fkey", "run_id", "seq"),
    bytes_cap("chunk_id", 1000, "run_evidence_chunk_length"),
)
