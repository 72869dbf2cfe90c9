"""Chats with their messages; runs with their events and evidence."""

from __future__ import annotations

from pgrecall import revisions

revision = "0005"
down_revision = "0003"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE pgrecall.chat_sessions (
  tenant_id text NOT NULL,
  session_id text COLLATE "C" NOT NULL,
  subject text COLLATE "C",
  next_position bigint NOT NULL DEFAULT 0,
  text_config text NOT NULL DEFAULT 'simple',
  metadata jsonb NOT NULL DEFAULT '{}'::jsonb,
  ttl interval,
  message_ttl interval,
  expires_at timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT chat_sessions_pkey PRIMARY KEY (tenant_id, session_id),
  CONSTRAINT chat_sessions_id_length CHECK (octet_length(session_id) BETWEEN 1 AND 1000),
  CONSTRAINT chat_sessions_subject_length CHECK (octet_length(subject) BETWEEN 1 AND 1000)
);
CREATE INDEX chat_sessions_subject_idx ON pgrecall.chat_sessions (tenant_id, subject) WHERE subject IS NOT NULL;
CREATE INDEX chat_sessions_expiry_idx ON pgrecall.chat_sessions (tenant_id, expires_at)
  WHERE expires_at IS NOT NULL;
CREATE TABLE pgrecall.chat_messages (
  tenant_id text NOT NULL,
  session_id text COLLATE "C" NOT NULL,
  position bigint NOT NULL,
  message_id text COLLATE "C",
  role text NOT NULL,
  name text,
  text text NOT NULL,
  content jsonb,
  tool_calls jsonb,
  tool_call_id text,
  metadata jsonb NOT NULL DEFAULT '{}'::jsonb,
  payload jsonb,
  framework text,
  status text NOT NULL DEFAULT 'active',
  text_search tsvector,
  expires_at timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT chat_messages_pkey PRIMARY KEY (tenant_id, session_id, position),
  CONSTRAINT chat_messages_session_fkey FOREIGN KEY (tenant_id, session_id)
    REFERENCES pgrecall.chat_sessions (tenant_id, session_id) ON DELETE CASCADE,
  CONSTRAINT chat_messages_id_length CHECK (octet_length(message_id) BETWEEN 1 AND 1000),
  CONSTRAINT chat_messages_role
    CHECK (role IN ('system', 'developer', 'user', 'assistant', 'tool', 'function', 'other')),
  CONSTRAINT chat_messages_status CHECK (status IN ('active', 'archived'))
);
-- Partial, though every message has an id: as it stands no foreign key's check can take it for the primary key.
CREATE UNIQUE INDEX chat_messages_id_key ON pgrecall.chat_messages (tenant_id, session_id, message_id)
  WHERE message_id IS NOT NULL;
CREATE INDEX chat_messages_text_search_idx ON pgrecall.chat_messages USING gin (text_search)
  WHERE text_search IS NOT NULL;
CREATE INDEX chat_messages_expiry_idx ON pgrecall.chat_messages (tenant_id, expires_at)
  WHERE expires_at IS NOT NULL;
CREATE TABLE pgrecall.runs (
  tenant_id text NOT NULL,
  run_id text COLLATE "C" NOT NULL,
  subject text COLLATE "C",
  status text NOT NULL,
  state jsonb NOT NULL DEFAULT '{}'::jsonb,
  state_version bigint NOT NULL DEFAULT 0,
  next_seq bigint NOT NULL DEFAULT 0,
  metadata jsonb NOT NULL DEFAULT '{}'::jsonb,
  expires_at timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT runs_pkey PRIMARY KEY (tenant_id, run_id),
  CONSTRAINT runs_id_length CHECK (octet_length(run_id) BETWEEN 1 AND 1000),
  CONSTRAINT runs_subject_length CHECK (octet_length(subject) BETWEEN 1 AND 1000),
  CONSTRAINT runs_status_length CHECK (octet_length(status) BETWEEN 1 AND 200)
);
CREATE INDEX runs_subject_idx ON pgrecall.runs (tenant_id, subject) WHERE subject IS NOT NULL;
CREATE INDEX runs_expiry_idx ON pgrecall.runs (tenant_id, expires_at) WHERE expires_at IS NOT NULL;
CREATE TABLE pgrecall.run_events (
  tenant_id text NOT NULL,
  run_id text COLLATE "C" NOT NULL,
  seq bigint NOT NULL,
  kind text NOT NULL,
  data jsonb NOT NULL DEFAULT '{}'::jsonb,
  created_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT run_events_pkey PRIMARY KEY (tenant_id, run_id, seq),
  CONSTRAINT run_events_run_fkey FOREIGN KEY (tenant_id, run_id)
    REFERENCES pgrecall.runs (tenant_id, run_id) ON DELETE CASCADE,
  CONSTRAINT run_events_kind_length CHECK (octet_length(kind) BETWEEN 1 AND 200)
);
CREATE TABLE pgrecall.run_retrievals (
  tenant_id text NOT NULL,
  run_id text COLLATE "C" NOT NULL,
  seq bigint NOT NULL,
  collection text NOT NULL,
  provider text,
  model text,
  dim integer,
  distance text,
  query_hash bytea NOT NULL,
  query_kind text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT run_retrievals_pkey PRIMARY KEY (tenant_id, run_id, seq),
  CONSTRAINT run_retrievals_run_fkey FOREIGN KEY (tenant_id, run_id)
    REFERENCES pgrecall.runs (tenant_id, run_id) ON DELETE CASCADE,
  CONSTRAINT run_retrievals_query_kind CHECK (query_kind IN ('text', 'vector'))
);
CREATE TABLE pgrecall.run_evidence (
  tenant_id text NOT NULL,
  run_id text COLLATE "C" NOT NULL,
  seq bigint NOT NULL,
  rank integer NOT NULL,
  chunk_id text COLLATE "C" NOT NULL,
  doc_id text COLLATE "C",
  content_hash bytea NOT NULL,
  score double precision NOT NULL,
  distance double precision,
  CONSTRAINT run_evidence_pkey PRIMARY KEY (tenant_id, run_id, seq, rank),
  CONSTRAINT run_evidence_retrieval_fkey FOREIGN KEY (tenant_id, run_id, seq)
    REFERENCES pgrecall.run_retrievals (tenant_id, run_id, seq) ON DELETE CASCADE,
  CONSTRAINT run_evidence_chunk_length CHECK (octet_length(chunk_id) BETWEEN 1 AND 1000)
);
"""

TENANT_TABLES = (
    "chat_sessions", "chat_messages", "runs", "run_events", "run_retrievals", "run_evidence",
)  # fmt: skip

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
DROP TABLE pgrecall.run_evidence, pgrecall.run_retrievals, pgrecall.run_events, pgrecall.runs,
  pgrecall.chat_messages, pgrecall.chat_sessions;
""")
