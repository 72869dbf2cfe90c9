"""Tenants, spaces, collections, documents, chunks and their vectors."""

from __future__ import annotations

import sqlalchemy as sa
from pgvector.sqlalchemy import HALFVEC
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, REAL, TSVECTOR

from pgrecall.schema.base import ID, bytes_cap, created_at, metadata

#: The value of `chunk_vectors.graph` for a row that waits to enter a graph.
WAITING = 32767
#: A graph is an index that maintenance creates, one for each space and generation. It is not part of any revision.
GRAPH_NAME = "chunk_vectors_graph_{space}_{generation}"

tenants = sa.Table(
    "tenants",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    created_at(),
    sa.Column("erased_at", sa.TIMESTAMP(timezone=True)),
    bytes_cap("tenant_id", 200, "tenants_id_length"),
)

embed_spaces = sa.Table(
    "embed_spaces",
    metadata,
    sa.Column("id", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("provider", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("dim", sa.Integer, nullable=False),
    sa.Column("distance", sa.Text, nullable=False),
    sa.Column("graph_generation", sa.SmallInteger, nullable=False, server_default="0"),
    created_at(),
    sa.Column("graph_rows", sa.Integer, nullable=False, server_default="0"),
    sa.UniqueConstraint("provider", "model", "dim", "distance", name="embed_spaces_identity"),
    sa.UniqueConstraint("id", "dim", name="embed_spaces_id_dim"),
    bytes_cap("provider", 200, "embed_spaces_provider_length"),
    bytes_cap("model", 200, "embed_spaces_model_length"),
    sa.CheckConstraint("distance = ANY (ARRAY['cosine'::text, 'l2'::text, 'ip'::text])", name="embed_spaces_distance"),
    sa.CheckConstraint("dim >= 1 AND dim <= 16000", name="embed_spaces_dim"),
)

collections = sa.Table(
    "collections",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("space_id", sa.SmallInteger, nullable=False),
    sa.Column("fingerprint", ARRAY(REAL)),
    sa.Column("text_config", sa.Text),
    sa.Column("settings", JSONB, nullable=False, server_default=sa.text("'{}'::jsonb")),
    created_at(),
    # During a re-embedding: the space that is being filled, and the fingerprint of its model.
    sa.Column("next_space_id", sa.SmallInteger),
    sa.Column("next_fingerprint", ARRAY(REAL)),
    sa.ForeignKeyConstraint(["tenant_id"], ["pgrecall.tenants.tenant_id"], name="collections_tenant_fkey"),
    sa.ForeignKeyConstraint(["space_id"], ["pgrecall.embed_spaces.id"], name="collections_space_fkey"),
    sa.ForeignKeyConstraint(["next_space_id"], ["pgrecall.embed_spaces.id"], name="collections_next_space_fkey"),
    bytes_cap("name", 200, "collections_name_length"),
)

documents = sa.Table(
    "documents",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("collection", sa.Text, primary_key=True),
    sa.Column("id", ID, primary_key=True),
    sa.Column("source", sa.Text),
    sa.Column("uri", sa.Text),
    sa.Column("content_hash", sa.Text),
    sa.Column("metadata", JSONB, nullable=False, server_default=sa.text("'{}'::jsonb")),
    created_at(),
    sa.Column("updated_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.text("now()")),
    sa.ForeignKeyConstraint(
        ["tenant_id", "collection"],
        ["pgrecall.collections.tenant_id", "pgrecall.collections.name"],
        name="documents_collection_fkey",
    ),
    bytes_cap("id", 1000, "documents_id_length"),
)

chunks = sa.Table(
    "chunks",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("collection", sa.Text, primary_key=True),
    sa.Column("id", ID, primary_key=True),
    sa.Column("doc_id", ID),
    sa.Column("chunk_index", sa.Integer),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("content_hash", sa.LargeBinary, nullable=False),
    sa.Column("metadata", JSONB, nullable=False, server_default=sa.text("'{}'::jsonb")),
    sa.Column("payload", JSONB),
    sa.Column("text_search", TSVECTOR),
    created_at(),
    sa.ForeignKeyConstraint(
        ["tenant_id", "collection", "doc_id"],
        ["pgrecall.documents.tenant_id", "pgrecall.documents.collection", "pgrecall.documents.id"],
        name="chunks_document_fkey",
        ondelete="CASCADE",
    ),
    bytes_cap("id", 1000, "chunks_id_length"),
    # Partial, so that a foreign key's check, which has no doc_id, can't use it. Without statistics it seems as cheap
    # as the primary key, and the cached plan would then read all of the tenant's rows (671 rows/s instead of 5,741).
    sa.Index(
        "chunks_document_idx",
        "tenant_id",
        "doc_id",
        "collection",
        postgresql_where=sa.text("doc_id IS NOT NULL"),
    ),
    sa.Index(
        "chunks_metadata_idx",
        "metadata",
        postgresql_using="gin",
        postgresql_ops={"metadata": "jsonb_path_ops"},
    ),
    sa.Index(
        "chunks_text_search_idx",
        "text_search",
        postgresql_using="gin",
        postgresql_where=sa.text("text_search IS NOT NULL"),
    ),
)

chunk_vectors = sa.Table(
    "chunk_vectors",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("collection", sa.Text, primary_key=True),
    sa.Column("chunk_id", ID, primary_key=True),
    sa.Column("space_id", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("embed_dim", sa.Integer, sa.Computed("vector_dims(embedding)", persisted=True), nullable=False),
    sa.Column("embed_norm", sa.REAL, nullable=False),
    sa.Column("embedding", HALFVEC(), nullable=False),
    sa.Column("graph", sa.SmallInteger, nullable=False, server_default=sa.text(str(WAITING))),
    created_at(),
    sa.ForeignKeyConstraint(
        ["tenant_id", "collection", "chunk_id"],
        ["pgrecall.chunks.tenant_id", "pgrecall.chunks.collection", "pgrecall.chunks.id"],
        name="chunk_vectors_chunk_fkey",
        ondelete="CASCADE",
    ),
    sa.ForeignKeyConstraint(
        ["space_id", "embed_dim"],
        ["pgrecall.embed_spaces.id", "pgrecall.embed_spaces.dim"],
        name="chunk_vectors_space_fkey",
    ),
    # For whole collections, and only for statements with `graph >= 0`, which is true of every row. Otherwise the
    # planner would prefer it to the primary key on a table without statistics, and read the collection for one vector.
    sa.Index(
        "chunk_vectors_scan_idx",
        "tenant_id",
        "collection",
        "space_id",
        "graph",
        postgresql_where=sa.text("graph >= 0"),
    ),
)

chunk_keys = sa.Table(
    "chunk_keys",
    metadata,
    sa.Column("tenant_id", sa.Text),
    sa.Column("collection", sa.Text),
    sa.Column("chunk_id", ID),
    sa.Column("key", sa.SmallInteger, autoincrement=False),
    sa.Column("value", sa.Text(collation="C")),
    # The chunk first. Without statistics a key that begins with the collection would seem as cheap for a lookup by
    # value as the index below, which is meant for it, and would be read for the whole collection.
    sa.PrimaryKeyConstraint("chunk_id", "tenant_id", "collection", "key", "value", name="chunk_keys_pkey"),
    sa.ForeignKeyConstraint(
        ["tenant_id", "collection", "chunk_id"],
        ["pgrecall.chunks.tenant_id", "pgrecall.chunks.collection", "pgrecall.chunks.id"],
        name="chunk_keys_chunk_fkey",
        ondelete="CASCADE",
    ),
    # Partial, although every row is in it: the cascade's cached plan must not use it instead of the primary key.
    sa.Index(
        "chunk_keys_value_idx",
        "tenant_id",
        "collection",
        "key",
        "value",
        "chunk_id",
        postgresql_where=sa.text("key >= 0"),
    ),
)
