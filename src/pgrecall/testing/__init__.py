"""For tests: stores in memory that need no Postgres, and (in `pgrecall.testing.contract`) what every store must do.

The stores in memory need nothing beyond pgrecall itself; the contract needs pytest.
"""

from pgrecall.testing.database import InMemoryDatabase, InMemoryTenant
from pgrecall.testing.facts import InMemoryFactStore
from pgrecall.testing.runs import InMemoryRunStore
from pgrecall.testing.vectors import InMemoryVectorStore

__all__ = ["InMemoryDatabase", "InMemoryFactStore", "InMemoryRunStore", "InMemoryTenant", "InMemoryVectorStore"]
