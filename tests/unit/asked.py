"""A wire format as its tests ask it: requests in, the exact answers out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from salver.errors import SalverError
from salver.protocols import Encoded, Protocol, Subject
from salver.signature import Column, Field, Signature

PREDICTION = (Column("prediction", "float"),)


def one_input(field: Field) -> Signature:
    """A signature with this input alone."""
    return Signature(inputs=(field,), outputs=PREDICTION)


class Asked:
    """One wire format, of a release churn@7 with any signature."""

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol

    def codec(self, signature: Signature) -> Any:
        return self._protocol.codec(Subject("churn", 7, "sklearn", signature))

    def answers(
        self,
        signature: Signature,
        bodies: list[bytes],
        outputs: Mapping[str, Any] | None = None,
        failures: Mapping[int, SalverError] | None = None,
        options: dict[str, str] | None = None,
    ) -> list[Encoded]:
        """Decode, answer each row with its place in the batch (or `outputs`), encode."""
        codec = self.codec(signature)
        decoded = codec.decode(bodies, options)
        given = {"prediction": np.arange(float(decoded.count))} if outputs is None else outputs
        return list(codec.encode(decoded, given, failures or {}))

    def columns(self, signature: Signature, *requests: bytes) -> dict[str, Any]:
        """What the model gets."""
        decoded = self.codec(signature).decode(requests)
        assert [part.failure for part in decoded.parts] == [None] * len(requests)
        return {name: values.tolist() for name, values in decoded.columns.items()}

    def said(self, signature: Signature, request: bytes) -> str:
        """The words a request is refused with in V1 and V2; its status is 400."""
        (answer,) = self.answers(signature, [request])
        assert (answer.status, answer.content_type) == (400, "application/json")
        refused = json.loads(answer.body)
        assert list(refused) == ["error"]
        return str(refused["error"])
