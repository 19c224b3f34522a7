"""What the authors of plugins run against their own: contract suites, one per port."""
