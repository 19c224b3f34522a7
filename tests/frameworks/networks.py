"""Networks of the tests, as a user's own module that travels as code."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import nn


class Digits(nn.Module):
    """A small convolutional network for images of 8 by 8, with buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.3)
        )
        self.classify = nn.Linear(128, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Scores of shape (rows, 10) of images of shape (rows, 8, 8)."""
        scores: torch.Tensor = self.classify(self.features(images.unsqueeze(1) / 16.0))
        return scores


class Dense(nn.Module):
    """Layers of given sizes; it remembers what it was built with."""

    def __init__(self, sizes: list[int], *, dropout: float = 0.1) -> None:
        super().__init__()
        self.arguments = {"sizes": sizes, "dropout": dropout}
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers[:-2])

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """One row of the last size per row."""
        answer: torch.Tensor = self.layers(rows)
        return answer


class Sized(nn.Module):
    """A layer that has to be told its size, and keeps it to itself."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, 1)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """One number per row."""
        answer: torch.Tensor = self.layer(rows)
        return answer


class Tied(nn.Module):
    """Words in, scores of words out, through the same matrix both times."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 8)
        self.score = nn.Linear(8, 50, bias=False)
        self.score.weight = self.embed.weight
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        """Scores of shape (rows, 50) of words of shape (rows, n)."""
        answer: torch.Tensor = self.score(self.embed(words).mean(1)) * self.scale
        return answer


class Parts(NamedTuple):
    """Two answers."""

    label: torch.Tensor
    weight: torch.Tensor


class Two(nn.Module):
    """Takes an image and a number by name; gives two answers. It changes its input in place, as it should not."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Linear(64, 4)
        self.age = nn.Linear(1, 4)

    def forward(self, image: torch.Tensor, age: torch.Tensor) -> Parts:
        """A score of shape (rows, 4) and one number per row."""
        image.mul_(0.5)
        hidden = self.image(image.flatten(1)) + self.age(age.unsqueeze(1))
        return Parts(hidden, hidden.sum(1))


class Named(Two):
    """The same with a dict as the answer."""

    def forward(self, image: torch.Tensor, age: torch.Tensor) -> dict[str, torch.Tensor]:
        """The two answers by name."""
        label, weight = super().forward(image, age)
        return {"label": label, "weight": weight}
