"""What other libraries kept in Postgres, read into a tenant: vectors, chats, long-term memory."""
