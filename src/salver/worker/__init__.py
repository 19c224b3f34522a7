"""The process that holds one release in that release's environment: it loads, proves and predicts."""
