"""Searches of a collection: the route, the statement, fusion and ranking, and how a search explains itself."""
