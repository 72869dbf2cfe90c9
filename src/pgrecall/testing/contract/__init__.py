"""What every store must do, as test classes to subclass. It needs pytest.

from pgrecall.testing.contract import VectorStoreContract

class TestMyStore(VectorStoreContract):
    @pytest.fixture
    def make_store(self):
        database = MyDatabase()
        return lambda tenant, collection, space, text_config: MyStore(database, tenant, collection, space)
"""

import pytest

# Without it a failed assert of these modules would not show what it compared.
pytest.register_assert_rewrite(
    *(f"pgrecall.testing.contract.{name}" for name in ("base", "memory", "reads", "runs", "vectors", "words", "writes"))
)

from pgrecall.testing.contract.base import SPACE, AsyncFace, StoreContract  # noqa: E402 -- after the line above
from pgrecall.testing.contract.memory import MemoryStoreContract  # noqa: E402
from pgrecall.testing.contract.reads import VectorReadsContract  # noqa: E402
from pgrecall.testing.contract.runs import RunStoreContract  # noqa: E402
from pgrecall.testing.contract.vectors import VectorStoreContract  # noqa: E402
from pgrecall.testing.contract.words import VectorWordsContract  # noqa: E402
from pgrecall.testing.contract.writes import VectorWritesContract  # noqa: E402

__all__ = [
    "SPACE",
    "AsyncFace",
    "MemoryStoreContract",
    "RunStoreContract",
    "StoreContract",
    "VectorReadsContract",
    "VectorStoreContract",
    "VectorWordsContract",
    "VectorWritesContract",
]
