"""Imports what other libraries stored in Postgres into a tenant: vectors, chats, long-term memory."""
