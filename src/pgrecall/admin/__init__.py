"""What the owner of the tables runs: migrations, drift, partitions, Citus, and LEAKPROOF marks."""
