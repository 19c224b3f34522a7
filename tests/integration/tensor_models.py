"""Small models of tensors and of text for the clients of other servers: a module of its own, since releases take it."""

from __future__ import annotations

from typing import Any

import numpy as np

import salver


class Pixel(salver.Model):
    """The first value of each image, and the image without its rows."""

    def predict(self, rows: Any) -> Any:
        rows["x"] *= 1  # the array is the model's own
        return {"first": rows["x"][:, 0, 0, 0], "column": rows["x"][:, 0, :, 0]}


class Half(salver.Model):
    """Half-precision floats, as they came."""

    def predict(self, rows: Any) -> Any:
        return {"y": rows["x"]}


class Greeting(salver.Model):
    """Text from text and numbers; nobody is greeted without a name."""

    def predict(self, rows: Any) -> Any:
        pairs = list(zip(rows["name"], rows["age"], strict=True))
        return {
            "text": np.array([f"{name} {age}" if name else None for name, age in pairs], object),
            "adult": np.array([age >= 18 for _, age in pairs]),
            "age": rows["age"],
        }


class Known(salver.Model):
    """The names as they came, and whether each age is known."""

    def predict(self, rows: Any) -> Any:
        return {"name": rows["name"], "known": np.array([age == age for age in rows["age"]])}
