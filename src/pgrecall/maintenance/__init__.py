"""Maintenance of graphs: rows enter them, new generations are built beside the old, what is left over is dropped."""

from pgrecall.maintenance.indexes import MaintenanceProgress
from pgrecall.maintenance.maintainer import Maintainer, aside

__all__ = ["Maintainer", "MaintenanceProgress", "aside"]
