"""Maintenance of graphs: rows enter them, new generations are built next to the old ones, leftovers are dropped."""

from pgrecall.maintenance.indexes import MaintenanceProgress
from pgrecall.maintenance.maintainer import Maintainer, aside

__all__ = ["Maintainer", "MaintenanceProgress", "aside"]
