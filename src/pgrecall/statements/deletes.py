"""Deletes of documents, collections and tenants: leaf tables first, so that counts are exact and no cascade runs."""

LOCK_DOCUMENTS = """
SELECT id FROM pgrecall.documents
WHERE tenant_id = %(tenant)s AND collection = %(collection)s AND id = ANY (%(doc_ids)s::text[])
ORDER BY id COLLATE "C" FOR UPDATE
"""

DOCUMENTS = """
WITH gone AS (
  DELETE FROM pgrecall.documents
  WHERE tenant_id = %(tenant)s AND collection = %(collection)s AND id = ANY (%(doc_ids)s::text[]) RETURNING 1)
SELECT count(*) FROM gone
"""

# FOR UPDATE waits for every writer of the collection (they hold FOR SHARE) and keeps new ones out.
LOCK_COLLECTION = """
SELECT FROM pgrecall.collections WHERE tenant_id = %(tenant)s AND name = %(collection)s FOR UPDATE
"""

COLLECTION = {
    "vectors": "DELETE FROM pgrecall.chunk_vectors WHERE tenant_id = %(tenant)s AND collection = %(collection)s",
    "chunks": "DELETE FROM pgrecall.chunks WHERE tenant_id = %(tenant)s AND collection = %(collection)s",
    "documents": "DELETE FROM pgrecall.documents WHERE tenant_id = %(tenant)s AND collection = %(collection)s",
    "collections": "DELETE FROM pgrecall.collections WHERE tenant_id = %(tenant)s AND name = %(collection)s",
}

# The tombstone: set first, so that writers under way are waited for and later ones are refused.
ERASE_TENANT = """
UPDATE pgrecall.tenants SET erased_at = statement_timestamp() WHERE tenant_id = %(tenant)s AND erased_at IS NULL
"""

TENANT = {
    "vectors": "DELETE FROM pgrecall.chunk_vectors WHERE tenant_id = %(tenant)s",
    "chunks": "DELETE FROM pgrecall.chunks WHERE tenant_id = %(tenant)s",
    "documents": "DELETE FROM pgrecall.documents WHERE tenant_id = %(tenant)s",
    "collections": "DELETE FROM pgrecall.collections WHERE tenant_id = %(tenant)s",
    "messages": "DELETE FROM pgrecall.chat_messages WHERE tenant_id = %(tenant)s",
    "chats": "DELETE FROM pgrecall.chat_sessions WHERE tenant_id = %(tenant)s",
    "evidence": "DELETE FROM pgrecall.run_evidence WHERE tenant_id = %(tenant)s",
    "retrievals": "DELETE FROM pgrecall.run_retrievals WHERE tenant_id = %(tenant)s",
    "run_events": "DELETE FROM pgrecall.run_events WHERE tenant_id = %(tenant)s",
    "runs": "DELETE FROM pgrecall.runs WHERE tenant_id = %(tenant)s",
}

REMAINING = """
SELECT (SELECT count(*) FROM pgrecall.chunk_vectors WHERE tenant_id = %(tenant)s)
     + (SELECT count(*) FROM pgrecall.chunks WHERE tenant_id = %(tenant)s)
     + (SELECT count(*) FROM pgrecall.documents WHERE tenant_id = %(tenant)s)
     + (SELECT count(*) FROM pgrecall.collections WHERE tenant_id = %(tenant)s)
     + (SELECT count(*) FROM pgrecall.chat_messages WHERE tenant_id = %(tenant)s)
     + (SELECT count(*) FROM pgrecall.chat_sessions WHERE tenant_id = %(tenant)s)
     + (SELECT count(*) FROM pgrecall.run_evidence WHERE tenant_id = %(tenant)s)
     + (SELECT count(*) FROM pgrecall.run_retrievals WHERE tenant_id = %(tenant)s)
     + (SELECT count(*) FROM pgrecall.run_events WHERE tenant_id = %(tenant)s)
     + (SELECT count(*) FROM pgrecall.runs WHERE tenant_id = %(tenant)s)
"""
