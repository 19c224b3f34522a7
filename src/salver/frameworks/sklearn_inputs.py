"""What a scikit-learn model takes: a DataFrame, with categoricals where it needs them, a matrix, or texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from salver import tables
from salver.frameworks import arrange
from salver.frameworks.arrange import Arrange
from salver.frameworks.texts import require_one_text
from salver.signature import Column, Signature


def columns(model: Any) -> tuple[str, ...]:
    """The names of the columns that the model was trained on, in order; () where it doesn't know them."""
    return tuple(str(name) for name in getattr(model, "feature_names_in_", ()))


def arrangement(model: Any, options: Mapping[str, Any], signature: Signature) -> Arrange:
    """How the signature's columns become what the model takes.

    The option `categories` holds those of pandas, by column, that `arrange.categories_of` made of the examples.
    """
    names = columns(model)
    if not names and _reads_documents(model):
        require_one_text(signature, "sklearn")
        only = signature.inputs[0].name
        return lambda given: given[only]
    kept = options.get("categories")
    if names and kept:
        return arrange.frame_of(arrange.in_order(signature.inputs, names), kept)
    return arrange.arrangement(signature.inputs, names, _from_dtype(model))


def matrix(model: Any, options: Mapping[str, Any], signature: Signature) -> Arrange | None:
    """A matrix instead of a DataFrame, where both are the same to a model that has just been loaded; else None.

    They are where every input is a float and the first step only checks the names of columns, of which the loaded
    model is then relieved. That saves most of a call (2.3 ms to 0.7 for a scaled logistic regression of 30 columns).
    Publishing compares it with the model's own answers to a DataFrame.
    """
    names = columns(model)
    floats = {field.name for field in signature.inputs if isinstance(field, Column) and field.type == "float"}
    first = model.steps[0][1] if hasattr(model, "steps") else model
    if not names or not floats.issuperset(names) or not _only_checks_names(first) or options.get("categories"):
        return None
    del first.feature_names_in_
    return lambda given: tables.matrix(given, names)


_NAME_CHECKERS: Final = (
    "sklearn.discriminant_analysis", "sklearn.ensemble._forest", "sklearn.ensemble._gb",
    "sklearn.ensemble._hist_gradient_boosting.", "sklearn.impute._base", "sklearn.linear_model.", "sklearn.naive_bayes",
    "sklearn.neighbors.", "sklearn.neural_network.", "sklearn.preprocessing._data", "sklearn.svm.", "sklearn.tree.",
)  # fmt: skip
"""Modules whose estimators turn any input into one array before they look at it."""


def _only_checks_names(step: Any) -> bool:
    plain = getattr(step, "is_categorical_", None) is None and not hasattr(step, "_sklearn_output_config")
    return plain and "feature_names_in_" in vars(step) and type(step).__module__.startswith(_NAME_CHECKERS)


def _from_dtype(model: Any) -> frozenset[str]:
    """The columns that a histogram gradient boosting model learned to be categories from their pandas dtype."""
    mask = getattr(model, "is_categorical_", None)
    if mask is None or getattr(model, "categorical_features", None) != "from_dtype":
        return frozenset()
    return frozenset(str(name) for name, flag in zip(model.feature_names_in_, mask, strict=True) if flag)


def _reads_documents(model: Any) -> bool | None:
    """Whether a vectorizer that reads texts, such as `TfidfVectorizer`, is what a model's input goes to; None: unknown.

    What was fitted on texts, such as a function that cleans them, doesn't know a number of columns.
    """
    if hasattr(model, "build_analyzer"):
        return bool(getattr(model, "input", "content") == "content")
    if hasattr(model, "n_features_in_"):
        return False
    if hasattr(model, "steps"):
        return next((found for _, step in model.steps if (found := _reads_documents(step)) is not None), None)
    each = {_reads_documents(held) for held in _held(model)}
    return True if True in each else False if False in each else None


def _held(model: Any) -> list[Any]:
    """The estimators that a wrapper of scikit-learn passes its input on to."""
    for name in _HOLD:
        held = getattr(model, name, None)
        if isinstance(held, list):
            return [each[1] if isinstance(each, tuple) else each for each in held]
        if hasattr(held, "get_params"):
            return [held]
    return []


_HOLD: Final = (
    "best_estimator_", "calibrated_classifiers_", "estimator_", "estimators_", "regressor_", "transformer_list",
    "estimator",
)  # fmt: skip
"""Where wrappers keep what they fitted; in the last, what was fitted before."""
