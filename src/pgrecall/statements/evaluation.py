"""Evaluation sets, runs with their results, and the records that ragas stores."""

# Concurrent saves of the same set create one version, not two of the same content.
LOCK_SET = """
SELECT pg_advisory_xact_lock(hashtextextended(concat_ws(chr(31), 'pgrecall.eval_sets', %(tenant)s::text,
  %(name)s::text), 0::int8))
"""

SETS = """
SELECT s.name, s.version, s.sha256, s.kind, s.source, s.licence, s.left_out, s.created_at,
  (SELECT count(*) FROM pgrecall.eval_queries q
    WHERE q.tenant_id = %(tenant)s AND q.set_name = s.name AND q.set_version = s.version)
FROM pgrecall.eval_sets s
WHERE s.tenant_id = %(tenant)s AND (%(name)s::text IS NULL OR s.name = %(name)s::text)
  AND (%(version)s::int4 IS NULL OR s.version = %(version)s::int4)
ORDER BY s.name COLLATE "C", s.version DESC
"""

ADD_SET = """
INSERT INTO pgrecall.eval_sets (tenant_id, name, version, sha256, kind, source, licence, left_out)
VALUES (%(tenant)s, %(name)s, %(version)s, %(sha256)s, %(kind)s, %(source)s, %(licence)s, %(left_out)s::jsonb)
"""

ADD_QUERIES = """
INSERT INTO pgrecall.eval_queries
  (tenant_id, set_name, set_version, query_id, text, judged, for_tenant, filters, answer, contexts)
SELECT %(tenant)s, %(name)s, %(version)s, i.id, i.text, i.judged, i.for_tenant, i.filters, i.answer, i.contexts
FROM unnest(%(ids)s::text[], %(texts)s::text[], %(judged)s::jsonb[], %(tenants)s::text[], %(filters)s::jsonb[],
  %(answers)s::text[], %(contexts)s::jsonb[]) AS i (id, text, judged, for_tenant, filters, answer, contexts)
ORDER BY i.id COLLATE "C"
RETURNING 1
"""

QUERIES = """
SELECT query_id, text, judged, for_tenant, filters, answer, contexts FROM pgrecall.eval_queries
WHERE tenant_id = %(tenant)s AND set_name = %(name)s AND set_version = %(version)s ORDER BY query_id COLLATE "C"
"""

DELETE_QUERIES = """
DELETE FROM pgrecall.eval_queries WHERE tenant_id = %(tenant)s AND set_name = %(name)s
  AND (%(version)s::int4 IS NULL OR set_version = %(version)s::int4)
"""

DELETE_SETS = """
DELETE FROM pgrecall.eval_sets WHERE tenant_id = %(tenant)s AND name = %(name)s
  AND (%(version)s::int4 IS NULL OR version = %(version)s::int4)
"""

ADD_RUN = """
INSERT INTO pgrecall.eval_runs (tenant_id, run_id, set_name, set_version, set_sha256, status, config)
VALUES (%(tenant)s, %(run)s, %(set_name)s, %(set_version)s, %(set_sha256)s, 'running', %(config)s::jsonb)
"""

RUNS = """
SELECT run_id, set_name, set_version, set_sha256, status, config, summary, created_at, finished_at
FROM pgrecall.eval_runs
WHERE tenant_id = %(tenant)s AND (%(run)s::text IS NULL OR run_id = %(run)s::text)
  AND (%(set_name)s::text IS NULL OR set_name = %(set_name)s::text)
ORDER BY created_at DESC, run_id COLLATE "C" DESC LIMIT %(limit)s
"""

# FOR SHARE: no results are added to a run that is deleted or finished meanwhile.
LOCK_RUN = """
SELECT status FROM pgrecall.eval_runs WHERE tenant_id = %(tenant)s AND run_id = %(run)s FOR SHARE
"""

# If two processes ran the same query, the first result stays. A failed query can be run again.
ADD_RESULTS = """
INSERT INTO pgrecall.eval_results AS r
  (tenant_id, run_id, query_id, retrieved, metrics, latency, foreign_rows, error, unscored)
SELECT %(tenant)s, %(run)s, i.id, i.retrieved, i.metrics, i.latency, i.foreign_rows, i.error, i.unscored
FROM unnest(%(ids)s::text[], %(retrieved)s::jsonb[], %(metrics)s::jsonb[], %(latency)s::jsonb[],
  %(foreign)s::int4[], %(errors)s::text[], %(unscored)s::jsonb[])
  AS i (id, retrieved, metrics, latency, foreign_rows, error, unscored)
ORDER BY i.id COLLATE "C"
ON CONFLICT (tenant_id, run_id, query_id) DO UPDATE
SET retrieved = excluded.retrieved, metrics = excluded.metrics, latency = excluded.latency,
    foreign_rows = excluded.foreign_rows, error = excluded.error, unscored = excluded.unscored
WHERE r.error IS NOT NULL
"""

RESULTS = """
SELECT query_id, retrieved, metrics, latency, foreign_rows, error, unscored FROM pgrecall.eval_results
WHERE tenant_id = %(tenant)s AND run_id = %(run)s ORDER BY query_id COLLATE "C"
"""

FINISH_RUN = """
UPDATE pgrecall.eval_runs SET status = 'done', summary = %(summary)s::jsonb, finished_at = statement_timestamp()
WHERE tenant_id = %(tenant)s AND run_id = %(run)s
"""

DELETE_RESULTS = "DELETE FROM pgrecall.eval_results WHERE tenant_id = %(tenant)s AND run_id = %(run)s"

DELETE_RUN = "DELETE FROM pgrecall.eval_runs WHERE tenant_id = %(tenant)s AND run_id = %(run)s"

LOCK_RECORDS = """
SELECT pg_advisory_xact_lock(hashtextextended(concat_ws(chr(31), 'pgrecall.eval_records', %(tenant)s::text,
  %(kind)s::text, %(name)s::text), 0::int8))
"""

DELETE_RECORDS = """
DELETE FROM pgrecall.eval_records WHERE tenant_id = %(tenant)s AND kind = %(kind)s AND name = %(name)s
"""

# The first record only marks that the name exists, which may have no others.
ADD_RECORDS = """
INSERT INTO pgrecall.eval_records (tenant_id, kind, name, place, record)
SELECT %(tenant)s, %(kind)s, %(name)s, i.place - 2, i.record
FROM unnest(%(records)s::jsonb[]) WITH ORDINALITY AS i (record, place)
RETURNING 1
"""

RECORDS = """
SELECT record FROM pgrecall.eval_records
WHERE tenant_id = %(tenant)s AND kind = %(kind)s AND name = %(name)s ORDER BY place
"""

RECORD_NAMES = """
SELECT DISTINCT name COLLATE "C" FROM pgrecall.eval_records
WHERE tenant_id = %(tenant)s AND kind = %(kind)s ORDER BY 1
"""

SERVER = """
SELECT current_setting('server_version'), (SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'vector')
"""

ROW_COUNTS = """
SELECT (SELECT count(*) FROM pgrecall.chunks WHERE tenant_id = %(tenant)s AND collection = %(collection)s),
  (SELECT count(*) FROM pgrecall.documents WHERE tenant_id = %(tenant)s AND collection = %(collection)s)
"""
