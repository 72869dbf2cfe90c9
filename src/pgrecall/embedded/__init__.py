"""A real Postgres from a wheel, run as an embedded server: `start`, `status`, `stop` and `binaries`."""

from pgrecall.embedded.host import binaries
from pgrecall.embedded.server import EmbeddedServer, ServerStatus, default_home, start, status, stop

__all__ = ["EmbeddedServer", "ServerStatus", "binaries", "default_home", "start", "status", "stop"]
