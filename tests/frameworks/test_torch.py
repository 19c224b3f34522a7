"""PyTorch: the contract on each way a model is saved, what is refused, and served answers beside the model's own."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from sklearn.datasets import load_breast_cancer, load_digits
from torch import nn

from salver.errors import SalverError
from salver.frameworks import torch as torch_adapter
from salver.publish.infer import infer_inputs, infer_outputs, to_columns
from salver.signature import Column, Signature, Tensor
from salver.testing.frameworks import Case
from tests.frameworks.contract import assert_same_bits, kept_by
from tests.frameworks.networks import Dense, Digits, Named, Sized, Tied, Two
from tests.frameworks.served import served

TORCH = torch_adapter.FRAMEWORK
BATCH = torch.export.Dim("batch")
pytestmark = pytest.mark.filterwarnings(
    "ignore:`torch.jit:DeprecationWarning", "ignore:The 'torch.jit:DeprecationWarning"
)


@cache
def digits() -> tuple[Any, Any]:
    found = load_digits()
    return found.images.astype(np.float32), found.target


def fitted(module: nn.Module, rows: Any, target: Any, *, steps: int = 60) -> nn.Module:
    """The module after some steps of training, left in training mode."""
    optimizer = torch.optim.Adam(module.parameters(), 0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(rows), target).backward()
        optimizer.step()
    return module.train()


@cache
def convolution() -> nn.Module:
    torch.manual_seed(0)
    images, target = digits()
    return fitted(Digits(), torch.tensor(images), torch.tensor(target))


def case(model: Any, examples: Any, **options: Any) -> Case:
    """The case of a model and examples as a release would be made from them."""
    inputs = infer_inputs(examples)
    columns = to_columns(examples, inputs)
    probing = Signature(inputs, (Column("prediction", "float"),))
    raw = TORCH.in_memory(model, Path(), {**options}, probing)(columns)
    return Case(TORCH, model, columns, Signature(inputs, infer_outputs(raw)), exact=False)


@cache
def image_input() -> Case:
    return case(convolution(), digits()[0][:40])


@cache
def numeric_columns() -> Case:
    torch.manual_seed(0)
    rows, target = load_breast_cancer(return_X_y=True)
    model = fitted(Dense([30, 16, 2]), torch.tensor(rows, dtype=torch.float32), torch.tensor(target), steps=5)
    return case(model, rows[:40], arguments={"sizes": [30, 16, 2]})


@cache
def tied_words() -> Case:
    torch.manual_seed(0)
    words = np.random.default_rng(0).integers(0, 50, (20, 5))
    return case(Tied().double(), {"words": words})


def two_inputs() -> dict[str, Any]:
    return {"image": digits()[0][:40], "age": np.arange(40.0)}


@cache
def by_name() -> Case:
    torch.manual_seed(0)
    return case(Two(), two_inputs())


@cache
def answers_by_name() -> Case:
    torch.manual_seed(0)
    return case(Named(), two_inputs())


@cache
def scripted() -> Case:
    return case(torch.jit.script(convolution()), digits()[0][:40])


@cache
def scripted_by_name() -> Case:
    torch.manual_seed(0)
    return case(torch.jit.script(Two()), two_inputs())


@cache
def exported() -> Case:
    model = convolution().eval()
    program = torch.export.export(model, (torch.zeros(2, 8, 8),), dynamic_shapes=({0: BATCH},))
    model.train()
    return case(program, digits()[0][:40])


@cache
def exported_by_name() -> Case:
    torch.manual_seed(0)
    program = torch.export.export(
        Named().eval(), (torch.zeros(2, 8, 8),), {"age": torch.zeros(2)},
        dynamic_shapes={"image": {0: BATCH}, "age": {0: BATCH}},
    )  # fmt: skip
    return case(program, two_inputs())


CASES = (
    image_input,
    numeric_columns,
    tied_words,
    by_name,
    answers_by_name,
    scripted,
    scripted_by_name,
    exported,
    exported_by_name,
)


test_the_adapter_keeps_the_contract = kept_by(CASES)


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_a_loaded_model_answers_bit_for_bit_like_the_object(make: Callable[[], Case], tmp_path: Path) -> None:
    assert_same_bits(TORCH, make(), tmp_path)


def test_a_model_in_training_mode_is_asked_in_eval_mode_and_left_as_it_was(tmp_path: Path) -> None:
    one, model = image_input(), convolution()
    model.features[1].eval()
    before = [part.training for part in model.modules()]
    call = TORCH.in_memory(model, tmp_path, {}, one.signature)
    assert call(one.columns).tolist() == call(one.columns).tolist()
    assert [part.training for part in model.modules()] == before


def test_weights_are_in_safetensors_and_a_shared_tensor_is_written_once(tmp_path: Path) -> None:
    saved = TORCH.save(tied_words().model, tmp_path)
    kept = safetensors.torch.load_file(tmp_path / "model" / "model.safetensors")
    assert sorted(kept) == ["embed.weight", "scale"]
    assert kept["scale"].dtype == torch.float64
    assert saved.options["tied"] == {"score.weight": "embed.weight"}
    assert saved.unsafe == ""


def test_views_of_one_storage_are_each_kept_whole(tmp_path: Path) -> None:
    both = torch.arange(6.0).reshape(2, 3)
    model = nn.Linear(3, 1)
    model.weight, model.bias = nn.Parameter(both[:1]), nn.Parameter(both[1, :1])
    signature = Signature((Tensor("input", "float32", (-1, 3)),), (Tensor("prediction", "float32", (-1, 1)),))
    saved = TORCH.save(model, tmp_path)
    options = {**saved.options, "arguments": {"in_features": 3, "out_features": 1}}
    predict = TORCH.load(tmp_path, saved.entry, options, signature)
    rows = np.ones((2, 3), np.float32)
    assert predict({"input": rows})["prediction"].tolist() == model(torch.tensor(rows)).tolist()


def test_constructor_arguments_come_from_the_attribute_or_from_options(tmp_path: Path) -> None:
    assert TORCH.save(numeric_columns().model, tmp_path).options["arguments"] == {"sizes": [30, 16, 2], "dropout": 0.1}
    signature = Signature((Tensor("input", "float32", (-1, 3)),), (Tensor("prediction", "float32", (-1, 1)),))
    model, rows = Sized(3), np.ones((2, 3), np.float32)
    saved = TORCH.save(model, tmp_path)
    predict = TORCH.load(tmp_path, saved.entry, {**saved.options, "arguments": {"width": 3}}, signature)
    assert predict({"input": rows})["prediction"].tolist() == model(torch.tensor(rows)).tolist()


@pytest.mark.parametrize(
    ("model", "arguments", "says"),
    [
        (Sized(3), {}, "missing a required argument: 'width'"),
        (Sized(3), {"width": 4}, "layer.weight has the shape [1, 4], in the model [1, 3]"),
        (nn.Sequential(nn.Linear(3, 1)), {}, "0.weight is missing"),
    ],
)
def test_a_module_that_can_not_be_built_again_is_refused_with_what_to_do(
    model: nn.Module, arguments: dict[str, Any], says: str, tmp_path: Path
) -> None:
    signature = Signature((Tensor("input", "float32", (-1, 3)),), (Tensor("prediction", "float32", (-1, 1)),))
    with pytest.raises(SalverError) as caught:
        TORCH.in_memory(model, tmp_path, {"arguments": arguments}, signature)
    assert caught.value.code == "unsupported-model"
    assert says in str(caught.value)
    own = not type(model).__module__.startswith("torch.nn.")
    assert ("options={'arguments': {…}}" if own else "wrap it in a class of your own") in caught.value.hint


def test_building_a_module_again_leaves_the_random_numbers_of_the_caller_alone(tmp_path: Path) -> None:
    one = image_input()
    torch.manual_seed(5)
    expected = torch.rand(3).tolist()
    torch.manual_seed(5)
    TORCH.in_memory(one.model, tmp_path, {}, one.signature)
    assert torch.rand(3).tolist() == expected


def test_a_class_defined_in_a_function_is_refused(tmp_path: Path) -> None:
    class Local(nn.Linear):
        pass

    with pytest.raises(SalverError) as caught:
        TORCH.save(Local(2, 1), tmp_path)
    assert caught.value.code == "code-not-closed"


def test_archives_that_hold_programs_say_that_they_are_unsafe_and_name_no_source_file(tmp_path: Path) -> None:
    for make, suffix in ((scripted, "pt"), (exported, "pt2")):
        saved = TORCH.save(make().model, tmp_path)
        assert saved.unsafe
        with zipfile.ZipFile(tmp_path / "model" / f"model.{suffix}") as archive:
            everything = b"".join(archive.read(name) for name in archive.namelist())
        assert b"networks.py" not in everything


def test_the_example_rows_of_an_export_stay_behind_and_with_the_caller(tmp_path: Path) -> None:
    program = exported().model
    TORCH.save(program, tmp_path)
    assert torch.export.load(tmp_path / "model" / "model.pt2").example_inputs is None
    assert program.example_inputs is not None


def test_an_exported_program_with_a_pickle_in_it_is_not_loaded(tmp_path: Path) -> None:
    one = exported()
    saved = TORCH.save(one.model, tmp_path)
    torch.export.save(one.model, tmp_path / "model" / saved.entry)
    with pytest.raises(SalverError) as caught:
        TORCH.load(tmp_path, saved.entry, saved.options, one.signature)
    assert caught.value.code == "untrusted-artifact"


def test_an_export_for_one_size_of_batch_is_refused(tmp_path: Path) -> None:
    program = torch.export.export(nn.Linear(3, 1), (torch.zeros(2, 3),))
    with pytest.raises(SalverError) as caught:
        TORCH.save(program, tmp_path)
    assert caught.value.code == "unsupported-model"
    assert "dynamic_shapes" in caught.value.hint


@pytest.mark.parametrize(("device", "says"), [("cuda:7", "isn't available"), ("tpu", "unknown"), (3.5, "unknown")])
def test_a_device_that_is_not_here_is_refused(device: Any, says: str, tmp_path: Path) -> None:
    one = image_input()
    saved = TORCH.save(one.model, tmp_path)
    with pytest.raises(SalverError, match=says) as caught:
        TORCH.load(tmp_path, saved.entry, {**saved.options, "device": device}, one.signature)
    assert caught.value.code == "bad-settings"


def test_inputs_that_fit_no_argument_are_refused(tmp_path: Path) -> None:
    inputs = (Tensor("picture", "float32", (-1, 8, 8)), Column("age", "float"))
    with pytest.raises(SalverError) as caught:
        TORCH.in_memory(Two(), tmp_path, {}, Signature(inputs, (Column("prediction", "float"),)))
    assert caught.value.code == "bad-signature"
    assert "image, age" in caught.value.message


def test_threads_are_those_that_the_worker_was_granted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, before = image_input(), torch.get_num_threads()
    saved = TORCH.save(one.model, tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    try:
        TORCH.load(tmp_path, saved.entry, saved.options, one.signature)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_probabilities_are_the_softmax_of_scores_with_the_classes_that_were_named(tmp_path: Path) -> None:
    one = image_input()
    classes = [f"digit {number}" for number in range(10)]
    saved = TORCH.save(one.model, tmp_path)
    options = {**saved.options, "method": "predict_proba", "classes": classes}
    outputs = (Column("prediction", "str"), Tensor("probabilities", "float32", (-1, 10)))
    answer = TORCH.load(tmp_path, saved.entry, options, Signature(one.signature.inputs, outputs))(one.columns)
    scores = torch.tensor(TORCH.in_memory(one.model, tmp_path, {}, one.signature)(one.columns))
    assert answer["probabilities"].tolist() == scores.softmax(1).tolist()
    assert answer["prediction"].tolist() == [classes[place] for place in scores.argmax(1)]


def test_one_score_is_the_logit_of_the_second_class(tmp_path: Path) -> None:
    rows = np.array([[-5.0], [5.0]], np.float32)
    options = {"method": "predict_proba", "arguments": {"in_features": 1, "out_features": 1}, "classes": ["no", "yes"]}
    signature = Signature((Tensor("input", "float32", (-1, 1)),), (Column("prediction", "str"),))
    model = nn.Linear(1, 1)
    nn.init.ones_(model.weight)
    answer = TORCH.in_memory(model, tmp_path, options, signature)({"input": rows})
    assert answer["prediction"].tolist() == ["no", "yes"]
    assert np.allclose(answer["probabilities"].sum(1), 1.0)


def test_a_compiled_module_is_released_as_the_module_it_wraps(tmp_path: Path) -> None:
    compiled = torch.compile(convolution())
    assert TORCH.handles(compiled)
    assert TORCH.save(compiled, tmp_path).entry == "tests.frameworks.networks:Digits"


PARITY = {"module": convolution, "scripted": lambda: scripted().model, "exported": lambda: exported().model}


@pytest.mark.parametrize("kind", PARITY)
def test_all_digits_are_served_as_the_model_answers_them(kind: str, tmp_path: Path) -> None:
    images, _ = digits()
    model = PARITY[kind]()
    rows = [{"input": image} for image in images.tolist()]
    answers = served(tmp_path, model, images[:200], rows)
    original = convolution().eval()
    with torch.inference_mode():
        whole = original(torch.tensor(images)).numpy()
    got = np.array([answer["prediction"] for answer in answers])
    assert got.shape == whole.shape == (1797, 10)
    off = np.abs(got - whole) / np.abs(whole).max(axis=1, keepdims=True)
    assert off.max() <= 1e-6, f"{off.max():.1e} off; {(got == whole).mean():.4f} of the scores are equal"


def test_a_script_that_was_called_with_gradients_before_is_released(tmp_path: Path) -> None:
    rows = load_breast_cancer().data[:40].astype("float32")
    script = torch.jit.script(torch.nn.Sequential(torch.nn.Linear(30, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)))
    for _ in range(3):
        wanted = script(torch.tensor(rows)).detach().numpy()
    inputs = infer_inputs(rows)
    predict = TORCH.in_memory(script, tmp_path, {}, Signature(inputs, infer_outputs(wanted)))
    for _ in range(3):
        assert np.array_equal(predict(to_columns(rows, inputs)), wanted)


def test_tensors_are_examples_as_arrays_are() -> None:
    rows = load_breast_cancer().data[:40, :3]
    arrays = {f"x{place}": rows[:, place] for place in range(3)}
    tensors = {name: torch.tensor(values, requires_grad=name == "x0") for name, values in arrays.items()}
    inputs = infer_inputs(arrays)
    expected = to_columns(arrays, inputs)
    listed = [{name: values[row] for name, values in tensors.items()} for row in range(len(rows))]
    for examples in (tensors, listed, torch.tensor(rows), list(torch.tensor(rows))):
        assert infer_inputs(examples) == inputs
        found = to_columns(examples, inputs)
        assert all((found[name] == expected[name]).all() for name in expected)
    images = torch.tensor(digits()[0][:5])
    for examples in (images, {"input": images}, [{"input": image} for image in images]):
        assert infer_inputs(examples) == infer_inputs(digits()[0][:5])


def test_a_tensor_that_numpy_has_no_array_for_is_named_by_its_column() -> None:
    with pytest.raises(SalverError) as caught:
        infer_inputs({"x": torch.ones(3, dtype=torch.bfloat16)})
    assert "column 'x' holds a Tensor of torch.bfloat16" in caught.value.details[0]


class Looked(nn.Module):
    """The mean of what each id stands for."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.table(ids).mean(dim=1)


def test_a_bare_matrix_of_ids_for_an_embedding_is_told_to_have_a_name(tmp_path: Path) -> None:
    ids, model = np.arange(20).reshape(4, 5) % 10, Looked()
    bare, outputs = infer_inputs(ids), (Tensor("prediction", "float32", (-1, 3)),)
    call = TORCH.in_memory(model, tmp_path, {}, Signature(bare, outputs))
    with pytest.raises(SalverError) as caught:
        call(to_columns(ids, bare))
    assert caught.value.code == "bad-examples"
    assert "examples={'ids': array}" in caught.value.hint
    named = infer_inputs({"ids": ids})
    assert TORCH.in_memory(model, tmp_path, {}, Signature(named, outputs))({"ids": ids}).shape == (4, 3)
