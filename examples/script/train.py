"""The shortest way to a service: train in a script, release the object.

python train.py
salver serve cancer
"""

from __future__ import annotations

from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import salver


def main() -> None:
    """Train a classifier on 569 tumours and publish it; the training rows show Salver what a row looks like."""
    rows, malign = load_breast_cancer(as_frame=True, return_X_y=True)
    train_rows, test_rows, train_malign, test_malign = train_test_split(rows, malign, random_state=0)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(train_rows, train_malign)
    print(f"right on {model.score(test_rows, test_malign):.1%} of {len(test_rows)} tumours it has not seen")  # noqa: T201
    print(salver.release("cancer", model, examples=train_rows))  # noqa: T201


if __name__ == "__main__":
    main()
