"""Embedding models: spaces and fingerprints in use, and calls to embedding functions."""
