"""Facts: storing, searching, deleting and restoring them, and the audit trail of these changes."""
