"""Deletes of documents and collections. Leaf tables first, so that counts are exact and no cascade runs."""

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

# FOR UPDATE waits for every writer of the collection (they hold FOR SHARE) and blocks new ones.
LOCK_COLLECTION = """
SELECT FROM pgrecall.collections WHERE tenant_id = %(tenant)s AND name = %(collection)s FOR UPDATE
"""

COLLECTION = {
    # `key >= 0` is true of every entry; only a statement with this condition can use the index on the tenant.
    "keys": "DELETE FROM pgrecall.chunk_keys WHERE tenant_id = %(tenant)s AND collection = %(collection)s AND key >= 0",
    "vectors": "DELETE FROM pgrecall.chunk_vectors WHERE tenant_id = %(tenant)s AND collection = %(collection)s",
    "chunks": "DELETE FROM pgrecall.chunks WHERE tenant_id = %(tenant)s AND collection = %(collection)s",
    "documents": "DELETE FROM pgrecall.documents WHERE tenant_id = %(tenant)s AND collection = %(collection)s",
    "records": "DELETE FROM pgrecall.index_records WHERE tenant_id = %(tenant)s AND collection = %(collection)s",
    "docstore": "DELETE FROM pgrecall.docstore WHERE tenant_id = %(tenant)s AND collection = %(collection)s",
    "collections": "DELETE FROM pgrecall.collections WHERE tenant_id = %(tenant)s AND name = %(collection)s",
}
#: What `clear_collection` keeps: the collection itself, and its index records and docstore.
STAYS = frozenset({"records", "docstore", "collections"})
