"""spaCy pipelines, saved in spaCy's own folder without pickle: blank ones that were trained, and rules.

Scores are float32 as the pipeline computes them. A text gets the same answer in any batch within 1e-6.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from salver import plugins
from salver.errors import error
from salver.frameworks import Columns, Predict, Saved, pickled
from salver.frameworks.answers import promised
from salver.frameworks.texts import require_one_text, texts
from salver.release import MODEL_DIR
from salver.signature import Signature

METHODS: Final = ("predict", "predict_proba", "entities")
DEVICES: Final = ("cpu", "cuda")


class Spacy:
    """The adapter of spaCy. The input is one column of text.

    A pipeline that classifies texts answers the likeliest category as `prediction`, and with `method` `predict_proba`
    the score of each as `probabilities` (in the order of the option `labels`). Any other, or one asked with `method`
    `entities`, answers as `prediction` a JSON list of the entities found, as text: objects of `text`, `label`, `start`
    and `end` (characters). Option `device`: "cpu" (default) or "cuda".
    """

    name = "spacy"
    options = ("method", "labels", "device")

    def handles(self, model: object) -> bool:
        """Whether `model` is a pipeline of spaCy."""
        bases = () if isinstance(model, type) else type(model).__mro__
        return any((base.__module__, base.__name__) == ("spacy.language", "Language") for base in bases)

    def save(self, model: Any, folder: Path) -> Saved:
        """Write the pipeline's folder as model/; raises `unsupported-model` where it neither classifies nor finds."""
        target = folder / MODEL_DIR
        target.mkdir(parents=True, exist_ok=True)
        labels = _labels(model)
        method = "predict" if labels else "entities"
        _require(model, method, labels)
        try:
            model.to_disk(target)
        except (TypeError, ValueError, AttributeError, NotImplementedError) as problem:
            raise error(
                "unsupported-model", f"the pipeline can't be saved: {type(problem).__name__}: {problem}"
            ) from None
        homes = _homes(model)
        imports = pickled.needed(homes | {"spacy"})
        own = sorted(name.partition(":")[0] for name in imports if ":" in name)
        return Saved(".", {"method": method, "labels": labels, "modules": own, "imports": imports}, "")

    def load(self, folder: Path, entry: str, options: Mapping[str, Any], signature: Signature) -> Predict:
        """Load the pipeline below `folder`; whatever would unpickle something is refused."""
        spacy = _spacy()
        device = options.get("device", "cpu")
        if device not in DEVICES:
            raise error("bad-settings", f"spacy: unknown device {device!r}", hint=f"one of {', '.join(DEVICES)}")
        if device == "cuda":
            spacy.require_gpu()
        for module in options.get("modules", ()):  # its components are known by name once it is imported
            importlib.import_module(module)
        path = folder / MODEL_DIR / entry
        with pickled.only((), "the pipeline"):
            model = spacy.load(path)
        return promised(self.in_memory(model, folder, options, signature), signature)

    def in_memory(
        self, model: Any, folder: Path, options: Mapping[str, Any], signature: Signature
    ) -> Callable[[Columns], Any]:
        """The function that predicts with `model` as it is in memory; its raw answers show what the outputs are."""
        del folder
        method, labels = options.get("method", "predict"), [str(label) for label in options.get("labels", ())]
        _require(model, method, labels)
        require_one_text(signature, "spacy")

        def predict(columns: Columns) -> Any:
            given = texts(columns, signature)
            # What a batch adds to the vocabulary is forgotten after it; else a worker would grow with every new word.
            with model.memory_zone():
                docs = list(model.pipe(given))
                if method == "entities":
                    return np.array([_entities(doc) for doc in docs], object)
                scores = np.array([[doc.cats[label] for label in labels] for doc in docs], np.float32)
            likeliest = np.array(labels, object)[scores.reshape(len(given), len(labels)).argmax(axis=1)]
            return likeliest if method == "predict" else {"prediction": likeliest, "probabilities": scores}

        return predict


FRAMEWORK = Spacy()


def _spacy() -> Any:
    try:
        return importlib.import_module("spacy")
    except ModuleNotFoundError as problem:
        if problem.name == "spacy":
            raise plugins.missing_extra("spacy", needed_for="a spaCy pipeline") from None
        raise


def _labels(model: Any) -> list[str]:
    """The categories of all its text classifiers, in their order; [] where it has none."""
    found = [label for name, pipe in model.pipeline if hasattr(pipe, "labels") and _classifies(model, name)
             for label in pipe.labels]  # fmt: skip
    return list(dict.fromkeys(map(str, found)))


def _classifies(model: Any, name: str) -> bool:
    return "doc.cats" in model.get_pipe_meta(name).assigns


def _require(model: Any, method: str, labels: Sequence[str]) -> None:
    if method not in METHODS:
        raise error("bad-settings", f"spacy: unknown method {method!r}", hint=f"one of {', '.join(METHODS)}")
    if method != "entities" and not labels:
        raise error("unsupported-model", f"the pipeline has no categories for method {method!r}", hint="use 'entities'")
    finds = any("doc.ents" in model.get_pipe_meta(name).assigns for name in model.pipe_names)
    if method == "entities" and not finds:
        raise error(
            "unsupported-model",
            f"the pipeline ({', '.join(model.pipe_names) or 'nothing'}) neither classifies texts nor finds entities",
            hint="for other annotations write a salver.Model whose load() calls spacy.load",
        )


def _homes(model: Any) -> set[str]:
    """The modules of the pipeline's components, as `module:name`; raises `code-not-closed` for one in a function."""
    kinds = [pipe if hasattr(pipe, "__qualname__") else type(pipe) for _, pipe in model.pipeline]
    for kind in kinds:
        if "<locals>" in kind.__qualname__:
            raise error(
                "code-not-closed",
                f"the component {kind.__qualname__} of {kind.__module__} is defined inside a function",
                hint="move it to the top of its module",
            )
    return {f"{kind.__module__}:{kind.__qualname__.partition('.')[0]}" for kind in kinds}


def _entities(doc: Any) -> str:
    found = [{"text": e.text, "label": e.label_, "start": e.start_char, "end": e.end_char} for e in doc.ents]
    return json.dumps(found, ensure_ascii=False)
