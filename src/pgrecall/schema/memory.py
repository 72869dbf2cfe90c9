"""Facts with their versions and vectors, their audit trail, and the tombstones of erased subjects."""

from __future__ import annotations

import sqlalchemy as sa
from pgvector.sqlalchemy import HALFVEC
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, REAL, TSVECTOR

from pgrecall.schema.base import ID, bytes_cap, created_at, metadata

_TIME = sa.TIMESTAMP(timezone=True)
_LIVE = sa.text("valid_to IS NULL AND deleted_at IS NULL")

#: One row per tenant: the space of its facts' vectors, and the text search configuration.
memory_settings = sa.Table(
    "memory_settings",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("space_id", sa.SmallInteger),
    sa.Column("fingerprint", ARRAY(REAL)),
    sa.Column("text_config", sa.Text, nullable=False),
    created_at(),
    sa.ForeignKeyConstraint(["space_id"], ["pgrecall.embed_spaces.id"], name="memory_settings_space_fkey"),
)

#: A version of a fact. It is live if neither superseded (valid_to) nor forgotten (deleted_at). '' means no subject.
memory_facts = sa.Table(
    "memory_facts",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("id", ID, primary_key=True),
    sa.Column("namespace", ARRAY(ID), nullable=False),
    sa.Column("subject", ID, nullable=False),
    sa.Column("kind", ID, nullable=False),
    sa.Column("key", ID, nullable=False),
    sa.Column("value", JSONB, nullable=False),
    sa.Column("text", sa.Text),
    sa.Column("source", sa.Text),
    sa.Column("confidence", sa.Double),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("valid_from", _TIME, nullable=False),
    sa.Column("valid_to", _TIME),
    sa.Column("supersedes_id", ID),
    sa.Column("ttl", sa.Double),
    sa.Column("ttl_refresh", sa.Boolean, nullable=False),
    sa.Column("expires_at", _TIME),
    sa.Column("deleted_at", _TIME),
    sa.Column("purge_at", _TIME),
    sa.Column("text_search", TSVECTOR),
    created_at(),
    bytes_cap("id", 200, "memory_facts_id_length"),
    sa.CheckConstraint(
        "(octet_length(subject) + octet_length(kind) + octet_length(key) + "
        "octet_length(array_to_string(namespace, ''::text)) + 8 * cardinality(namespace)) <= 2000",
        name="memory_facts_identity_length",
    ),
    sa.CheckConstraint("octet_length(kind) >= 1 AND octet_length(key) >= 1", name="memory_facts_identity_named"),
    sa.CheckConstraint(
        "confidence >= 0::double precision AND confidence <= 1::double precision", name="memory_facts_confidence"
    ),
    sa.Index(
        "memory_facts_live_key",
        "tenant_id",
        "subject",
        "kind",
        "key",
        "namespace",
        unique=True,
        postgresql_where=_LIVE,
    ),
    # Partial, so that the lookup of one fact, which has no such condition, can't use it. Without statistics the planner
    # would prefer it to the live key, and read all facts of the namespace.
    sa.Index(
        "memory_facts_namespace_idx",
        "tenant_id",
        "namespace",
        postgresql_where=sa.text("valid_to IS NULL AND deleted_at IS NULL AND namespace <> '{}'::text[]"),
    ),
    # All versions. The condition is true of every row, so only statements with it use it (see chunk_vectors_scan_idx).
    sa.Index(
        "memory_facts_versions_idx",
        "tenant_id",
        "subject",
        "kind",
        "key",
        "valid_from",
        postgresql_where=sa.text("valid_from > '-infinity'::timestamp with time zone"),
    ),
    sa.Index("memory_facts_expires_idx", "tenant_id", "expires_at", postgresql_where=sa.text("expires_at IS NOT NULL")),
    sa.Index("memory_facts_purge_idx", "tenant_id", "purge_at", postgresql_where=sa.text("purge_at IS NOT NULL")),
    sa.Index(
        "memory_facts_text_search_idx",
        "text_search",
        postgresql_using="gin",
        postgresql_where=sa.text("text_search IS NOT NULL"),
    ),
)

#: One vector for each embedded field of a fact. A superseded version has none.
fact_vectors = sa.Table(
    "fact_vectors",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("fact_id", ID, primary_key=True),
    sa.Column("field", ID, primary_key=True),
    sa.Column("space_id", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("embed_dim", sa.Integer, sa.Computed("vector_dims(embedding)", persisted=True), nullable=False),
    sa.Column("embed_norm", sa.REAL, nullable=False),
    sa.Column("embedding", HALFVEC(), nullable=False),
    created_at(),
    sa.ForeignKeyConstraint(
        ["tenant_id", "fact_id"],
        ["pgrecall.memory_facts.tenant_id", "pgrecall.memory_facts.id"],
        name="fact_vectors_fact_fkey",
        ondelete="CASCADE",
    ),
    sa.ForeignKeyConstraint(
        ["space_id", "embed_dim"],
        ["pgrecall.embed_spaces.id", "pgrecall.embed_spaces.dim"],
        name="fact_vectors_space_fkey",
    ),
    bytes_cap("field", 1000, "fact_vectors_field_length"),
)

#: The audit trail: what was done, by whom and why, never the value. Ids sort by time. The app's role may only insert.
memory_events = sa.Table(
    "memory_events",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("id", ID, primary_key=True),
    sa.Column("at", _TIME, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("target_id", ID),
    sa.Column("subject", ID),
    sa.Column("actor", sa.Text),
    sa.Column("reason", sa.Text),
    sa.Column("detail", JSONB),
    sa.Index("memory_events_target_idx", "tenant_id", "target_id", postgresql_where=sa.text("target_id IS NOT NULL")),
    sa.Index("memory_events_subject_idx", "tenant_id", "subject", postgresql_where=sa.text("subject IS NOT NULL")),
)

#: Tombstones of subjects: the salted hash of each erased subject, to refuse late writers. One salt per tenant.
erased_subjects = sa.Table(
    "erased_subjects",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("subject_hash", sa.LargeBinary, primary_key=True),
    sa.Column("salt", sa.LargeBinary, nullable=False),
    sa.Column("erased_at", _TIME, nullable=False),
)
