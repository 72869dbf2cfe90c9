"""What callers hold: a database, a tenant of it, a tenant's vector store. Sync and async on one object."""
