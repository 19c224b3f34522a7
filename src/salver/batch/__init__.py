"""Scores a file with a release: rows in, the same rows with predictions out, in bounded memory.

`records` reads rows of each format with the line they came from, `results` writes them back, `score` does the work.
"""
