"""The index records of ingestions."""

from __future__ import annotations

import sqlalchemy as sa

from pgrecall.schema.base import ID, bytes_cap, created_at, metadata

# No foreign key to the collection: an ingestion may record its keys before the collection's first chunk is written.
index_records = sa.Table(
    "index_records",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("collection", sa.Text, primary_key=True),
    sa.Column("namespace", sa.Text, primary_key=True),
    sa.Column("key", ID, primary_key=True),
    sa.Column("group_id", sa.Text),
    created_at(),
    sa.Column("updated_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.text("now()")),
    bytes_cap("tenant_id", 200, "index_records_tenant_length"),
    bytes_cap("collection", 200, "index_records_collection_length"),
    sa.CheckConstraint("octet_length(namespace) <= 200", name="index_records_namespace_length"),
    bytes_cap("key", 1000, "index_records_key_length"),
    bytes_cap("group_id", 1000, "index_records_group_length"),
    # An incremental run lists the keys of each source that it saw.
    sa.Index(
        "index_records_group_idx",
        "tenant_id",
        "collection",
        "namespace",
        "group_id",
        postgresql_where=sa.text("group_id IS NOT NULL"),
    ),
)
