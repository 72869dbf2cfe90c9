"""What the stores do, as plain functions over a gate or a transaction; one body for sync and async."""
