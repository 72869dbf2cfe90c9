"""Evaluation: eval sets with their queries, runs with their results, and records of ragas."""

from __future__ import annotations

from pgrecall import revisions

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE pgrecall.eval_sets (
  tenant_id text NOT NULL,
  name text NOT NULL,
  version integer NOT NULL,
  sha256 text NOT NULL,
  kind text NOT NULL,
  source text,
  licence text,
  left_out jsonb NOT NULL DEFAULT '{}'::jsonb,
  created_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT eval_sets_pkey PRIMARY KEY (tenant_id, name, version),
  CONSTRAINT eval_sets_name_length CHECK (octet_length(name) BETWEEN 1 AND 200)
);
CREATE TABLE pgrecall.eval_queries (
  tenant_id text NOT NULL,
  set_name text NOT NULL,
  set_version integer NOT NULL,
  query_id text COLLATE "C" NOT NULL,
  text text NOT NULL,
  judged jsonb NOT NULL,
  for_tenant text,
  filters jsonb,
  answer text,
  contexts jsonb NOT NULL DEFAULT '[]'::jsonb,
  CONSTRAINT eval_queries_pkey PRIMARY KEY (tenant_id, set_name, set_version, query_id),
  CONSTRAINT eval_queries_set_fkey FOREIGN KEY (tenant_id, set_name, set_version)
    REFERENCES pgrecall.eval_sets (tenant_id, name, version) ON DELETE CASCADE,
  CONSTRAINT eval_queries_id_length CHECK (octet_length(query_id) BETWEEN 1 AND 1000)
);
-- The set by name, version and hash, and no foreign key: a run's figures outlive the set that they were made on.
CREATE TABLE pgrecall.eval_runs (
  tenant_id text NOT NULL,
  run_id text COLLATE "C" NOT NULL,
  set_name text NOT NULL,
  set_version integer,
  set_sha256 text NOT NULL,
  status text NOT NULL,
  config jsonb NOT NULL,
  summary jsonb,
  created_at timestamptz NOT NULL DEFAULT now(),
  finished_at timestamptz,
  CONSTRAINT eval_runs_pkey PRIMARY KEY (tenant_id, run_id),
  CONSTRAINT eval_runs_status CHECK (status IN ('running', 'done')),
  CONSTRAINT eval_runs_id_length CHECK (octet_length(run_id) BETWEEN 1 AND 200)
);
CREATE TABLE pgrecall.eval_results (
  tenant_id text NOT NULL,
  run_id text COLLATE "C" NOT NULL,
  query_id text COLLATE "C" NOT NULL,
  retrieved jsonb NOT NULL,
  metrics jsonb NOT NULL,
  latency jsonb NOT NULL,
  foreign_rows integer NOT NULL,
  error text,
  unscored jsonb NOT NULL DEFAULT '{}'::jsonb,
  created_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT eval_results_pkey PRIMARY KEY (tenant_id, run_id, query_id),
  CONSTRAINT eval_results_run_fkey FOREIGN KEY (tenant_id, run_id)
    REFERENCES pgrecall.eval_runs (tenant_id, run_id) ON DELETE CASCADE
);
CREATE TABLE pgrecall.eval_records (
  tenant_id text NOT NULL,
  kind text NOT NULL,
  name text COLLATE "C" NOT NULL,
  place integer NOT NULL,
  record jsonb NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT eval_records_pkey PRIMARY KEY (tenant_id, kind, name, place),
  CONSTRAINT eval_records_kind CHECK (kind IN ('datasets', 'experiments')),
  CONSTRAINT eval_records_name_length CHECK (octet_length(name) BETWEEN 1 AND 200)
);
"""

TENANT_TABLES = ("eval_sets", "eval_queries", "eval_runs", "eval_results", "eval_records")

POLICIES = """
ALTER TABLE pgrecall.{table} ENABLE ROW LEVEL SECURITY;
ALTER TABLE pgrecall.{table} FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON pgrecall.{table} TO pgrecall_app
  USING (tenant_id = nullif(current_setting('pgrecall.tenant_id', true), ''))
  WITH CHECK (tenant_id = nullif(current_setting('pgrecall.tenant_id', true), ''));
CREATE POLICY maintenance ON pgrecall.{table} TO pgrecall_maintenance USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON pgrecall.{table} TO pgrecall_app, pgrecall_maintenance;
"""


def upgrade() -> None:
    revisions.prepare()
    revisions.run(TABLES)
    for table in TENANT_TABLES:
        revisions.run(POLICIES.format(table=table))


def downgrade() -> None:
    revisions.run("""
DROP TABLE pgrecall.eval_results, pgrecall.eval_runs, pgrecall.eval_queries, pgrecall.eval_sets, pgrecall.eval_records;
""")
