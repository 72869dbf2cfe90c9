"""Tombstones of tenants and subjects: the locks of erasures and writers, and the rows that refuse late writers."""

ADD_TENANT = "INSERT INTO pgrecall.tenants (tenant_id) VALUES (%(tenant)s) ON CONFLICT DO NOTHING"

# Every write's first statement. FOR SHARE: a deletion of the tenant and an erasure of a subject update or lock this
# row, so they wait for writers that hold it. If a writer had to wait, its next statement sees what they did.
LOCK_TENANT = "SELECT erased_at FROM pgrecall.tenants WHERE tenant_id = %(tenant)s FOR SHARE"

# Must be a statement of its own after the tenant's lock: an erasure of a subject holds that lock until its tombstone
# is written.
ERASED_SUBJECTS = """
SELECT i.subject, gone.erased_at FROM unnest(%(subjects)s::text[]) AS i (subject)
JOIN LATERAL (
  SELECT e.erased_at FROM pgrecall.erased_subjects e
  WHERE e.tenant_id = %(tenant)s AND e.subject_hash = sha256((
    SELECT s.salt FROM pgrecall.erased_subjects s WHERE s.tenant_id = %(tenant)s LIMIT 1
  ) || convert_to(i.subject, 'UTF8')) LIMIT 1) gone ON true
"""

#: A condition of a write: the subject has no tombstone. A write that finds no row looks for the reason afterwards.
SUBJECT_NOT_ERASED = """
  AND (%(subject)s::text IS NULL OR NOT EXISTS (
    SELECT FROM pgrecall.erased_subjects e
    WHERE e.tenant_id = %(tenant)s AND e.subject_hash = sha256((
      SELECT o.salt FROM pgrecall.erased_subjects o WHERE o.tenant_id = %(tenant)s LIMIT 1
    ) || convert_to(%(subject)s::text, 'UTF8'))))"""

# The tombstone of a tenant. It is set first, so that it waits for current writers and later ones are refused.
ERASE_TENANT = """
UPDATE pgrecall.tenants SET erased_at = statement_timestamp() WHERE tenant_id = %(tenant)s AND erased_at IS NULL
"""

# Waits for every writer of the tenant (they hold FOR SHARE), and keeps new ones out until the tombstone is written.
LOCK_OUT_WRITERS = "SELECT FROM pgrecall.tenants WHERE tenant_id = %(tenant)s FOR NO KEY UPDATE"

ADD_TOMBSTONE = """
INSERT INTO pgrecall.erased_subjects (tenant_id, subject_hash, salt, erased_at)
SELECT %(tenant)s, sha256(own.salt || convert_to(%(subject)s, 'UTF8')), own.salt, statement_timestamp()
FROM (SELECT coalesce((
  SELECT s.salt FROM pgrecall.erased_subjects s WHERE s.tenant_id = %(tenant)s LIMIT 1), %(salt)b::bytea) AS salt) own
ON CONFLICT DO NOTHING
"""

LIFT_TOMBSTONE = """
DELETE FROM pgrecall.erased_subjects WHERE tenant_id = %(tenant)s AND subject_hash = sha256((
  SELECT s.salt FROM pgrecall.erased_subjects s WHERE s.tenant_id = %(tenant)s LIMIT 1
) || convert_to(%(subject)s, 'UTF8'))
"""

REOPEN_TENANT = """
UPDATE pgrecall.tenants SET erased_at = NULL WHERE tenant_id = %(tenant)s AND erased_at IS NOT NULL
"""
