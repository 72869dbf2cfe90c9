"""Stores in memory, and the contract that every store keeps."""
