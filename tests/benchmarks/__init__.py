"""The benchmarks whose figures are in docs/benchmarks: `python -m tests.benchmarks [--quick] [--page] [names…]`."""
