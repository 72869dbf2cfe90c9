"""Writing, reading and deleting chunks, and what is stored with them: indexed keys and full text."""
