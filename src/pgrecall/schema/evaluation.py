"""Evaluation sets with their queries, runs with their results, and the records that ragas stores."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from pgrecall.schema.base import ID, bytes_cap, created_at, metadata

eval_sets = sa.Table(
    "eval_sets",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("sha256", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("source", sa.Text),
    sa.Column("licence", sa.Text),
    sa.Column("left_out", JSONB, nullable=False, server_default=sa.text("'{}'::jsonb")),
    created_at(),
    bytes_cap("name", 200, "eval_sets_name_length"),
)

eval_queries = sa.Table(
    "eval_queries",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("set_name", sa.Text, primary_key=True),
    sa.Column("set_version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("query_id", ID, primary_key=True),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("judged", JSONB, nullable=False),
    sa.Column("for_tenant", sa.Text),
    sa.Column("filters", JSONB),
    sa.Column("answer", sa.Text),
    sa.Column("contexts", JSONB, nullable=False, server_default=sa.text("'[]'::jsonb")),
    sa.ForeignKeyConstraint(
        ["tenant_id", "set_name", "set_version"],
        ["pgrecall.eval_sets.tenant_id", "pgrecall.eval_sets.name", "pgrecall.eval_sets.version"],
        name="eval_queries_set_fkey",
        ondelete="CASCADE",
    ),
    bytes_cap("query_id", 1000, "eval_queries_id_length"),
)

eval_runs = sa.Table(
    "eval_runs",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("run_id", ID, primary_key=True),
    # The set's name, version and hash, without a foreign key: a run's figures outlive their set.
    sa.Column("set_name", sa.Text, nullable=False),
    sa.Column("set_version", sa.Integer),
    sa.Column("set_sha256", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("config", JSONB, nullable=False),
    sa.Column("summary", JSONB),
    created_at(),
    sa.Column("finished_at", sa.TIMESTAMP(timezone=True)),
    sa.CheckConstraint("status = ANY (ARRAY['running'::text, 'done'::text])", name="eval_runs_status"),
    bytes_cap("run_id", 200, "eval_runs_id_length"),
)

eval_results = sa.Table(
    "eval_results",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("run_id", ID, primary_key=True),
    sa.Column("query_id", ID, primary_key=True),
    sa.Column("retrieved", JSONB, nullable=False),
    sa.Column("metrics", JSONB, nullable=False),
    sa.Column("latency", JSONB, nullable=False),
    sa.Column("foreign_rows", sa.Integer, nullable=False),
    sa.Column("error", sa.Text),
    sa.Column("unscored", JSONB, nullable=False, server_default=sa.text("'{}'::jsonb")),
    created_at(),
    sa.ForeignKeyConstraint(
        ["tenant_id", "run_id"],
        ["pgrecall.eval_runs.tenant_id", "pgrecall.eval_runs.run_id"],
        name="eval_results_run_fkey",
        ondelete="CASCADE",
    ),
)

eval_records = sa.Table(
    "eval_records",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("name", ID, primary_key=True),
    sa.Column("place", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("record", JSONB, nullable=False),
    created_at(),
    sa.CheckConstraint("kind = ANY (ARRAY['datasets'::text, 'experiments'::text])", name="eval_records_kind"),
    bytes_cap("name", 200, "eval_records_name_length"),
)
