"""sentence-transformers models keep the contract and embed over HTTP as the model itself does."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules as models

from salver.errors import SalverError
from salver.frameworks import sentence_transformers as adapter
from salver.release import Serving
from salver.signature import Column, Signature, Tensor
from salver.testing.frameworks import Case
from tests.frameworks import titles
from tests.frameworks.contract import each_check
from tests.frameworks.served import served

ADAPTER = adapter.FRAMEWORK
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:(transformers|torch|sentence_transformers).*"),
    pytest.mark.usefixtures("one_thread"),
]


def _case(model: Any, size: int) -> Case:
    rows = np.array(titles.films()["text"].tolist()[:40], object)
    signature = Signature((Column("text", "str"),), (Tensor("embedding", "float32", (-1, size)),))
    return Case(ADAPTER, model, {"text": rows}, signature, exact=False)


@cache
def _words(folder: str) -> Any:
    """A Transformer module of a BERT whose body learned to tell short films."""
    torch.manual_seed(0)
    trained = titles.fit(transformers.BertForSequenceClassification(titles.small(num_labels=2)), labels())
    trained.bert.save_pretrained(folder)
    titles.tokenizer().save_pretrained(folder)
    return models.Transformer(folder, max_seq_length=32)


def labels() -> list[int]:
    return [int(label) for label in titles.films()["label"]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("bert"))


def pooled(folder: str) -> Case:
    words = _words(folder)
    return _case(SentenceTransformer(modules=[words, models.Pooling(32)], device="cpu"), 32)


def normalised(folder: str) -> Case:
    words = _words(folder)
    torch.manual_seed(0)
    parts = [words, models.Pooling(32), models.Dense(32, 8), models.Normalize()]
    return _case(SentenceTransformer(modules=parts, device="cpu"), 8)


def static(folder: str) -> Case:
    del folder
    torch.manual_seed(0)
    part = models.StaticEmbedding(titles.tokenizer().backend_tokenizer, embedding_dim=16)
    return _case(SentenceTransformer(modules=[part], device="cpu"), 16)


CASES = (pooled, normalised, static)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
@each_check
def test_the_adapter_keeps_the_contract(
    check: Callable[[Case, Path], None], case: Callable[[str], Case], folder: str, tmp_path: Path
) -> None:
    check(case(folder), tmp_path)


def test_ten_thousand_titles_are_embedded_over_http_as_by_the_model(folder: str, tmp_path: Path) -> None:
    films, model = titles.films(), normalised(folder).model
    rows = films[["text"]].to_dict("records")
    answers = served(tmp_path, model, films[["text"]].head(200), rows, serving=Serving(threads=1))
    own = model.encode(films["text"].tolist(), show_progress_bar=False)
    got = np.array([answer["embedding"] for answer in answers], np.float32)
    assert got.shape == (10_000, 8)
    assert np.abs(got - own).max() <= 1e-6 * np.abs(own).max()


def test_what_encode_is_told_is_kept(folder: str, tmp_path: Path) -> None:
    one = pooled(folder)
    texts = one.columns["text"].tolist()
    saved = ADAPTER.save(one.model, tmp_path)
    told = {"normalize_embeddings": True, "prompt": "film: ", "truncate_dim": 4}
    signature = Signature(one.signature.inputs, (Tensor("embedding", "float32", (-1, 4)),))
    predict = ADAPTER.load(tmp_path, saved.entry, {**saved.options, **told}, signature)
    got = predict(one.columns)["embedding"]
    np.testing.assert_allclose(got, one.model.encode(texts, show_progress_bar=False, **told), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, rtol=1e-6)


def test_a_device_that_is_not_here_is_refused_before_a_worker_starts(folder: str, tmp_path: Path) -> None:
    one = pooled(folder)
    saved = ADAPTER.save(one.model, tmp_path)
    options = {**saved.options, "device": "cuda:99"}
    with pytest.raises(SalverError, match="cuda:99"):
        ADAPTER.in_memory(one.model, tmp_path, options, one.signature)
    with pytest.raises(SalverError, match="cuda:99"):
        ADAPTER.load(tmp_path, saved.entry, options, one.signature)


def test_an_unknown_method_is_refused(folder: str, tmp_path: Path) -> None:
    one = pooled(folder)
    saved = ADAPTER.save(one.model, tmp_path)
    with pytest.raises(SalverError) as caught:
        ADAPTER.load(tmp_path, saved.entry, {**saved.options, "method": "rank"}, one.signature)
    assert caught.value.code == "bad-settings"


def test_a_folder_with_pickled_weights_is_refused(folder: str, tmp_path: Path) -> None:
    one = pooled(folder)
    saved = ADAPTER.save(one.model, tmp_path)
    torch.save(one.model.state_dict(), tmp_path / "model" / "pytorch_model.bin")
    with pytest.raises(SalverError) as caught:
        ADAPTER.load(tmp_path, saved.entry, saved.options, one.signature)
    assert caught.value.code == "untrusted-artifact"


class Doubled(models.Normalize):  # type: ignore[misc]
    """A module that sentence-transformers doesn't have."""


def test_a_module_of_ones_own_is_refused(folder: str, tmp_path: Path) -> None:
    model = SentenceTransformer(modules=[_words(folder), models.Pooling(32), Doubled()], device="cpu")
    with pytest.raises(SalverError) as caught:
        ADAPTER.save(model, tmp_path)
    assert caught.value.code == "unsupported-model"
