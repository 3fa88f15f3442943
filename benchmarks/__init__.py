"""The reactor beside its peers, on the same works, in one run: `python -m benchmarks` (docs/performance.md)."""
