"""What people write today: one model behind a FastAPI service. BENCH_MODELS names the folder of the models."""
