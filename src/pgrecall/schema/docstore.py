"""The document store of ingestions."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from pgrecall.schema.base import ID, bytes_cap, created_at, metadata

docstore = sa.Table(
    "docstore",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    # No foreign key: a docstore may exist before its collection, which needs a space.
    sa.Column("collection", sa.Text, primary_key=True),
    sa.Column("id", ID, primary_key=True),
    sa.Column("hash", sa.Text),
    sa.Column("ref_doc_id", ID),
    sa.Column("metadata", JSONB),
    sa.Column("payload", JSONB),
    sa.Column("position", sa.Integer, nullable=False),
    created_at(),
    bytes_cap("collection", 200, "docstore_collection_length"),
    bytes_cap("id", 1000, "docstore_id_length"),
    bytes_cap("ref_doc_id", 1000, "docstore_ref_doc_id_length"),
    sa.Index(
        "docstore_ref_doc_idx",
        "tenant_id",
        "ref_doc_id",
        "collection",
        postgresql_where=sa.text("ref_doc_id IS NOT NULL"),
    ),
)
