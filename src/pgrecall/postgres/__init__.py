"""How the library talks to Postgres: pools, transactions, roles, the driver, and replicas."""
