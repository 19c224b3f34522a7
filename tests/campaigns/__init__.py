"""The long tests: one module per campaign, named by its promise (`r1.py`), with a sentence and `main(argv) -> int`."""
