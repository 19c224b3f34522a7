"""Pipelines of transformers keep the contract and answer over HTTP as the pipeline itself does."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import salver
from salver.errors import SalverError
from salver.frameworks import transformers as adapter
from salver.release import Serving
from salver.signature import Column, Field, Signature, Tensor
from salver.testing.frameworks import Case
from tests.frameworks import titles
from tests.frameworks.contract import kept_by
from tests.frameworks.served import served

ADAPTER = adapter.FRAMEWORK
ONE_THREAD = Serving(threads=1)
SHARES = (Column("prediction", "str"), Tensor("probabilities", "float32", (-1, 2)))
TEXT = Column("text", "str")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:(transformers|torch|huggingface_hub).*"),
    pytest.mark.usefixtures("one_thread"),
]


def _case(pipe: Any, outputs: tuple[Field, ...], *, exact: bool = False, mask: bool = False) -> Case:
    rows = titles.films()["text"].tolist()[:40]
    texts = [f"the [MASK] of {row}" for row in rows] if mask else rows
    return Case(ADAPTER, pipe, {"text": np.array(texts, object)}, Signature((TEXT,), outputs), exact)


def _pipe(task: str, kind: Any, **more: Any) -> Any:
    torch.manual_seed(0)
    model = kind(titles.small(**more.pop("config", {}))).eval()
    return transformers.pipeline(task, model=model, tokenizer=deepcopy(titles.tokenizer()), device="cpu", **more)


@cache
def classifier() -> Case:
    names = {0: "long", 1: "short"}
    pipe = _pipe(
        "text-classification",
        transformers.BertForSequenceClassification,
        config={"id2label": names, "label2id": {name: place for place, name in names.items()}},
        truncation=True,
    )
    titles.fit(pipe.model, titles.films()["label"].tolist())
    return _case(pipe, SHARES)


@cache
def regressor() -> Case:
    config = {"num_labels": 1, "problem_type": "regression"}
    pipe = _pipe("text-classification", transformers.BertForSequenceClassification, config=config)
    return _case(pipe, (Column("prediction", "float"),))


@cache
def zero_shot() -> Case:
    config = {"id2label": {0: "contradiction", 1: "entailment"}, "label2id": {"contradiction": 0, "entailment": 1}}
    pipe = _pipe(
        "zero-shot-classification",
        transformers.BertForSequenceClassification,
        config=config,
        candidate_labels=["drama", "animation"],
    )
    return _case(pipe, SHARES)


@cache
def entities() -> Case:
    pipe = _pipe(
        "token-classification",
        transformers.BertForTokenClassification,
        config={"num_labels": 3},
        aggregation_strategy="simple",
    )
    return _case(pipe, (Column("prediction", "str"),), exact=True)


@cache
def masked() -> Case:
    pipe = _pipe("fill-mask", transformers.BertForMaskedLM, top_k=3)
    outputs = (Column("prediction", "str"), Tensor("tokens", "str", (-1, 3)), Tensor("scores", "float32", (-1, 3)))
    return _case(pipe, outputs, mask=True)


@cache
def embedder() -> Case:
    return _case(
        _pipe("feature-extraction", transformers.BertModel, truncation=True),
        (Tensor("embedding", "float32", (-1, 32)),),
    )


@cache
def writer() -> Case:
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=len(titles.tokenizer()),
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=96,
        bos_token_id=2,
        eos_token_id=3,
    )
    model = transformers.GPT2LMHeadModel(config).eval()
    pipe = transformers.pipeline(
        "text-generation",
        model=model,
        tokenizer=deepcopy(titles.tokenizer()),
        device="cpu",
        max_new_tokens=5,
        return_full_text=False,
    )
    return _case(pipe, (Column("prediction", "str"),), exact=True)


CASES = (classifier, regressor, zero_shot, entities, masked, embedder, writer)


test_the_adapter_keeps_the_contract = kept_by(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_what_was_saved_answers_bit_by_bit_like_the_pipeline_in_memory(
    case: Callable[[], Case], tmp_path: Path
) -> None:
    one = case()
    saved = ADAPTER.save(one.model, tmp_path)
    own = ADAPTER.in_memory(one.model, tmp_path, saved.options, one.signature)(one.columns)
    loaded = ADAPTER.load(tmp_path, saved.entry, saved.options, one.signature)(one.columns)
    for name, values in loaded.items():
        assert values.tolist() == np.asarray(own[name]).astype(values.dtype).tolist()


def test_ten_thousand_titles_get_over_http_what_the_pipeline_answers(tmp_path: Path) -> None:
    films, pipe = titles.films(), classifier().model
    rows = films[["text"]].to_dict("records")
    answers = served(tmp_path, pipe, films[["text"]].head(200), rows, serving=ONE_THREAD)
    assert len(answers) == 10_000
    with torch.no_grad():
        own = pipe(films["text"].tolist(), top_k=None, batch_size=64)
    expected = np.array(
        [[{one["label"]: one["score"] for one in row}[name] for name in ("long", "short")] for row in own]
    )
    got = np.array([answer["probabilities"] for answer in answers])
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    assert [answer["prediction"] for answer in answers] == [row[0]["label"] for row in own]
    accuracy = np.mean(
        [
            answer["prediction"] == ("long", "short")[label]
            for answer, label in zip(answers, films["label"], strict=True)
        ]
    )
    assert accuracy > 0.7


def test_rows_computed_alone_equal_bit_by_bit_what_the_pipeline_answers_to_each(tmp_path: Path) -> None:
    films, pipe = titles.films().head(500), classifier().model
    rows = films[["text"]].to_dict("records")
    answers = served(tmp_path, pipe, films[["text"]], rows, serving=ONE_THREAD, options={"batch_size": 1})
    own = pipe(films["text"].tolist())
    assert [max(answer["probabilities"]) for answer in answers] == [
        json.loads(json.dumps(float(np.float32(one["score"])))) for one in own
    ]


def test_only_the_class_is_answered_where_only_it_is_asked_for(tmp_path: Path) -> None:
    one = classifier()
    saved = ADAPTER.save(one.model, tmp_path)
    signature = Signature((TEXT,), (Column("prediction", "str"),))
    predict = ADAPTER.load(tmp_path, saved.entry, {**saved.options, "method": "predict"}, signature)
    own = [answer["label"] for answer in one.model(one.columns["text"].tolist())]
    assert predict(one.columns)["prediction"].tolist() == own


def test_embeddings_are_the_mean_or_the_first_of_what_the_pipeline_gives_each_token(tmp_path: Path) -> None:
    one = embedder()
    saved = ADAPTER.save(one.model, tmp_path)
    tokens = [np.array(row[0]) for row in one.model(one.columns["text"].tolist())]
    for pooling, expected in (("mean", [row.mean(axis=0) for row in tokens]), ("cls", [row[0] for row in tokens])):
        predict = ADAPTER.load(tmp_path, saved.entry, {**saved.options, "pooling": pooling}, one.signature)
        np.testing.assert_allclose(predict(one.columns)["embedding"], expected, rtol=1e-4, atol=1e-6)


def test_entities_and_texts_are_those_of_the_pipeline(tmp_path: Path) -> None:
    one = entities()
    saved = ADAPTER.save(one.model, tmp_path)
    found = ADAPTER.load(tmp_path, saved.entry, saved.options, one.signature)(one.columns)["prediction"]
    own = one.model(one.columns["text"].tolist())
    assert [[entity["word"] for entity in json.loads(row)] for row in found] == [
        [e["word"] for e in row] for row in own
    ]
    assert json.loads(found[0])[0].keys() >= {"entity_group", "score", "start", "end"}


def test_the_folder_holds_safetensors_and_no_path_of_this_machine(tmp_path: Path) -> None:
    saved = ADAPTER.save(classifier().model, tmp_path)
    files = {path.name: path.read_bytes() for path in (tmp_path / "model").rglob("*") if path.is_file()}
    assert saved.unsafe == ""
    assert "model.safetensors" in files
    assert not any(str(tmp_path).encode() in content for content in files.values())


def test_pickled_weights_are_refused_with_what_to_do(tmp_path: Path) -> None:
    one = classifier()
    saved = ADAPTER.save(one.model, tmp_path)
    torch.save(one.model.model.state_dict(), tmp_path / "model" / "pytorch_model.bin")
    with pytest.raises(SalverError) as caught:
        ADAPTER.load(tmp_path, saved.entry, saved.options, one.signature)
    assert caught.value.code == "untrusted-artifact"
    assert caught.value.details == ("pytorch_model.bin",)
    assert "save_pretrained" in caught.value.hint


class OwnBert(transformers.BertForSequenceClassification):  # type: ignore[misc]
    """A class that transformers doesn't have."""


def test_a_model_of_a_class_that_transformers_does_not_have_is_refused(tmp_path: Path) -> None:
    pipe = _pipe("text-classification", OwnBert)
    with pytest.raises(SalverError) as caught:
        ADAPTER.save(pipe, tmp_path)
    assert caught.value.code == "unsupported-model"
    assert "OwnBert" in caught.value.message


def test_a_model_without_its_tokenizer_is_refused_with_what_to_release(tmp_path: Path) -> None:
    with pytest.raises(SalverError) as caught:
        salver.release("titles", classifier().model.model, examples=["a"], registry=str(tmp_path))
    assert caught.value.code == "unsupported-model"
    assert "pipeline" in caught.value.hint


def test_probabilities_of_a_pipeline_that_has_none_are_refused(tmp_path: Path) -> None:
    one = entities()
    saved = ADAPTER.save(one.model, tmp_path)
    with pytest.raises(SalverError, match="token-classification") as caught:
        ADAPTER.in_memory(one.model, tmp_path, {**saved.options, "method": "predict_proba"}, one.signature)
    assert caught.value.code == "unsupported-model"


def test_a_device_that_is_not_here_is_refused_before_a_worker_starts(tmp_path: Path) -> None:
    one = classifier()
    saved = ADAPTER.save(one.model, tmp_path)
    options = {**saved.options, "device": "cuda:99"}
    with pytest.raises(SalverError, match="cuda:99"):
        ADAPTER.in_memory(one.model, tmp_path, options, one.signature)
    with pytest.raises(SalverError, match="cuda:99"):
        ADAPTER.load(tmp_path, saved.entry, options, one.signature)


def test_saving_draws_no_progress_bars_and_leaves_those_of_the_user(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shown = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.enable_progress_bar()
    try:
        ADAPTER.save(classifier().model, tmp_path)
        assert capfd.readouterr().err == ""
        assert transformers.utils.logging.is_progress_bar_enabled()
    finally:
        if not shown:
            transformers.utils.logging.disable_progress_bar()


def test_two_columns_are_refused_before_anything_is_computed(tmp_path: Path) -> None:
    one = classifier()
    saved = ADAPTER.save(one.model, tmp_path)
    signature = Signature((TEXT, Column("year", "int")), one.signature.outputs)
    with pytest.raises(SalverError) as caught:
        ADAPTER.load(tmp_path, saved.entry, saved.options, signature)
    assert caught.value.code == "bad-signature"


def test_a_text_without_a_mask_is_an_error_of_that_row(tmp_path: Path) -> None:
    one = masked()
    saved = ADAPTER.save(one.model, tmp_path)
    predict = ADAPTER.load(tmp_path, saved.entry, saved.options, one.signature)
    with pytest.raises(ValueError, match="exactly once"):
        predict({"text": np.array(["nothing is missing here"], object)})
