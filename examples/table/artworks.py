"""What kind of work a title and an artist speak of: the mean of their word vectors, and a linear model on it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import salver

WORD = re.compile(r"\w+")


class Kind(salver.Model):
    """The vectors of 400,000 words stay in their file; a request reads those of its own words."""

    def load(self, files: Path) -> None:
        """Open the table, which reads next to nothing, and load the small weights."""
        self.words = salver.Table(files / "words.table")
        with np.load(files / "weights.npz") as saved:
            self.kinds, self.weights = saved["kinds"], saved["weights"]

    def predict(self, rows: Any) -> Any:
        """The likeliest kind of each work."""
        return self.kinds[(features(self.words, rows["text"]) @ self.weights).argmax(axis=1)]


def words_of(text: str) -> list[str]:
    """The words of a text as the table has them."""
    return WORD.findall(text.lower())


def features(words: salver.Table, texts: Any) -> NDArray[np.float64]:
    """The mean vector of the words of each text, of length one; unknown words count as zero."""
    tokens = [words_of(text) for text in texts]
    owners = np.repeat(np.arange(len(tokens)), [len(found) for found in tokens])
    vectors = words.get([word for found in tokens for word in found]).values
    sums = np.zeros((len(tokens), vectors.shape[1]))
    np.add.at(sums, owners, vectors)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    return sums / np.where(lengths == 0, 1, lengths)
