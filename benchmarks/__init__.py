"""Programs that measure: each ours beside its peers, in one run. docs/performance.md shows them."""
