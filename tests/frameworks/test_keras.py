"""Keras 3 on torch: the contract on each kind of model, what is refused, and served answers beside the model's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_digits

os.environ["KERAS_BACKEND"] = "torch"

import keras

from salver.errors import SalverError, UserError
from salver.frameworks import keras as keras_adapter
from salver.publish.infer import infer_inputs, infer_outputs, to_columns
from salver.signature import Column, Signature, Tensor
from salver.testing.frameworks import Case
from tests.frameworks.contract import assert_same_bits, kept_by
from tests.frameworks.layers import Scale, steep
from tests.frameworks.served import served

KERAS = keras_adapter.FRAMEWORK
LAYERS = keras.layers
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


@cache
def digits() -> tuple[Any, Any]:
    found = load_digits()
    return found.images.astype(np.float32), found.target


@cache
def convolution() -> Any:
    keras.utils.set_random_seed(0)
    images, target = digits()
    model = keras.Sequential(
        [
            keras.Input((8, 8)),
            Scale(16.0),
            LAYERS.Reshape((8, 8, 1)),
            LAYERS.Conv2D(8, 3, activation=steep),
            LAYERS.BatchNormalization(),
            LAYERS.Flatten(),
            LAYERS.Dropout(0.3),
            LAYERS.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(images, target, epochs=2, batch_size=128, verbose=0)
    return model


def case(model: Any, examples: Any, folder: Path) -> Case:
    inputs = infer_inputs(examples)
    columns = to_columns(examples, inputs)
    raw = KERAS.in_memory(model, folder, {}, Signature(inputs, (Column("prediction", "float"),)))(columns)
    return Case(KERAS, model, columns, Signature(inputs, infer_outputs(raw)), exact=False)


@cache
def sequential() -> Case:
    return case(convolution(), digits()[0][:40], Path())


@cache
def functional_with_names() -> Case:
    keras.utils.set_random_seed(1)
    image, age = keras.Input((8, 8), name="image"), keras.Input((1,), name="age")
    hidden = LAYERS.Concatenate()([LAYERS.Flatten()(image), age])
    outputs = {"label": LAYERS.Dense(3, activation="softmax")(hidden), "weight": LAYERS.Dense(1)(hidden)}
    model = keras.Model([image, age], outputs)
    return case(model, {"age": np.arange(40.0), "image": digits()[0][:40]}, Path())


@cache
def numeric_columns() -> Case:
    keras.utils.set_random_seed(2)
    rows, target = load_breast_cancer(return_X_y=True)
    normalise = LAYERS.Normalization()
    normalise.adapt(rows)
    model = keras.Sequential([keras.Input((30,)), normalise, LAYERS.Dense(8, "relu"), LAYERS.Dense(1)])
    model.compile("adam", keras.losses.BinaryCrossentropy(from_logits=True))
    model.fit(rows, target, epochs=2, verbose=0)
    return case(model, rows[:40], Path())


CASES = (sequential, functional_with_names, numeric_columns)


test_the_adapter_keeps_the_contract = kept_by(CASES)


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_a_loaded_model_answers_bit_for_bit_like_the_object(make: Callable[[], Case], tmp_path: Path) -> None:
    assert_same_bits(KERAS, make(), tmp_path)


def test_the_archive_holds_no_date_no_address_and_nothing_of_the_training(tmp_path: Path) -> None:
    import h5py

    saved = KERAS.save(convolution(), tmp_path)
    path = tmp_path / "model" / saved.entry
    with zipfile.ZipFile(path) as archive:
        assert json.loads(archive.read("metadata.json")) == {"keras_version": keras.__version__}
        config = archive.read("config.json").decode()
        with archive.open("model.weights.h5") as file, h5py.File(file) as weights:
            assert sorted(weights) == ["layers", "vars"]
    assert "compile_config" not in json.loads(config)
    assert str(id(convolution().dtype_policy)) not in config
    assert saved.unsafe == ""


def test_own_layers_and_functions_are_named_for_the_code_of_the_release(tmp_path: Path) -> None:
    saved = KERAS.save(convolution(), tmp_path)
    assert saved.options["imports"] == [
        "keras", "tests.frameworks.layers:Scale", "tests.frameworks.layers:steep", "torch"
    ]  # fmt: skip


def test_probabilities_of_a_softmax_are_taken_as_they_are_and_those_of_scores_are_made(tmp_path: Path) -> None:
    softmax, scores = sequential(), numeric_columns()
    outputs = (Column("prediction", "int"), Tensor("probabilities", "float32", (-1, -1)))
    answers = []
    for one in (softmax, scores):
        saved = KERAS.save(one.model, tmp_path)
        options = {**saved.options, "method": "predict_proba"}
        predict = KERAS.load(tmp_path, saved.entry, options, Signature(one.signature.inputs, outputs))
        answers.append(predict(one.columns))
    raw = KERAS.in_memory(softmax.model, tmp_path, {}, softmax.signature)(softmax.columns)
    assert answers[0]["probabilities"].tolist() == raw.tolist()
    assert answers[0]["prediction"].tolist() == raw.argmax(1).tolist()
    logits = KERAS.in_memory(scores.model, tmp_path, {}, scores.signature)(scores.columns)
    assert np.allclose(answers[1]["probabilities"][:, 1], 1 / (1 + np.exp(-logits[:, 0])), atol=1e-6)


def test_probabilities_of_a_model_that_has_none_are_the_users_matter(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4,)), LAYERS.Reshape((2, 2))])
    inputs = (Tensor("input", "float32", (-1, 4)),)
    call = KERAS.in_memory(
        model, tmp_path, {"method": "predict_proba"}, Signature(inputs, (Column("prediction", "int"),))
    )
    with pytest.raises(UserError, match="one score per class and row") as caught:
        call({"input": np.zeros((3, 4), np.float32)})
    assert caught.value.code == "unsupported-model"


def test_a_lambda_layer_is_refused_with_what_to_do(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((3,)), LAYERS.Lambda(lambda rows: rows * 2)])
    with pytest.raises(SalverError) as caught:
        KERAS.save(model, tmp_path)
    assert caught.value.code == "unsupported-model"
    assert "Lambda" in caught.value.hint


def test_a_layer_that_is_not_registered_is_refused_with_what_to_do(tmp_path: Path) -> None:
    class Own(LAYERS.Layer):
        def call(self, rows: Any) -> Any:
            return rows

    with pytest.raises(SalverError) as caught:
        KERAS.save(keras.Sequential([keras.Input((3,)), Own()]), tmp_path)
    assert caught.value.code == "unsupported-model"
    assert "register_keras_serializable" in caught.value.hint


def test_a_model_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SalverError, match="no weights") as caught:
        KERAS.save(keras.Sequential([LAYERS.Dense(1)]), tmp_path)
    assert caught.value.code == "unsupported-model"


def test_another_backend_is_refused_with_what_to_set() -> None:
    with pytest.raises(SalverError, match="tensorflow backend") as caught:
        keras_adapter.require_torch("tensorflow")
    assert caught.value.code == "unsupported-model"
    assert "KERAS_BACKEND=torch" in caught.value.hint


def test_a_worker_chooses_the_torch_backend_by_itself(tmp_path: Path) -> None:
    saved = KERAS.save(numeric_columns().model, tmp_path)
    program = (
        "import os, sys; from pathlib import Path; import msgspec\n"
        "from salver.frameworks.keras import FRAMEWORK; from salver.signature import Signature\n"
        "signature = msgspec.json.decode(sys.argv[2], type=Signature)\n"
        "FRAMEWORK.load(Path(sys.argv[1]), sys.argv[3], {}, signature)\n"
        "import keras; print(keras.config.backend())"
    )
    signature = msgspec.json.encode(numeric_columns().signature)
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    command = [sys.executable, "-c", program, tmp_path, signature, saved.entry]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == "torch\n"


def test_a_device_that_is_not_here_is_refused(tmp_path: Path) -> None:
    one = sequential()
    saved = KERAS.save(one.model, tmp_path)
    with pytest.raises(SalverError, match="isn't available") as caught:
        KERAS.load(tmp_path, saved.entry, {**saved.options, "device": "cuda:7"}, one.signature)
    assert caught.value.code == "bad-settings"


def test_all_digits_are_served_as_the_model_answers_them(tmp_path: Path) -> None:
    images, _ = digits()
    rows = [{"input": image} for image in images.tolist()]
    answers = served(tmp_path, convolution(), images[:200], rows)
    whole = convolution().predict(images, verbose=0)
    got = np.array([answer["prediction"] for answer in answers])
    assert got.shape == whole.shape == (1797, 10)
    off = np.abs(got - whole) / np.abs(whole).max(axis=1, keepdims=True)
    assert off.max() <= 1e-6, f"{off.max():.1e} off; {(got == whole).mean():.4f} of the scores are equal"
