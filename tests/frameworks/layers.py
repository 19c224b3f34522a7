"""A layer of a user's own, registered with Keras; this module travels as code."""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras


@keras.saving.register_keras_serializable(package="tests")
class Scale(keras.layers.Layer):
    """Divides by a number."""

    def __init__(self, by: float, **said: Any) -> None:
        super().__init__(**said)
        self.by = by

    def call(self, rows: Any) -> Any:
        """The rows, divided."""
        return rows / self.by

    def get_config(self) -> dict[str, Any]:
        """What the layer is built again from."""
        return {**super().get_config(), "by": self.by}


@keras.saving.register_keras_serializable(package="tests")
def steep(rows: Any) -> Any:
    """An activation."""
    return keras.ops.tanh(rows * 3.0)
