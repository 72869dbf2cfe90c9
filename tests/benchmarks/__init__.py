"""The figures that docs/benchmarks.md quotes: `python -m tests.benchmarks [--quick] [--json FILE] [names…]`."""
