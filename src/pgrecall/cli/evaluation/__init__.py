"""`pgrecall eval`: eval sets, runs, comparisons, reports, and a gate for continuous integration."""

from pgrecall.cli.evaluation import judge, runs, sets
from pgrecall.cli.evaluation.common import app

__all__ = ["app", "judge", "runs", "sets"]
