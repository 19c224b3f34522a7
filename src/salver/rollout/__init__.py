"""The moves on a model's route: promote and roll back. Each creates the next entry of an append-only list."""
