"""Hugging Face transformers pipelines over text, saved as a local folder: safetensors, configuration and tokenizer."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from salver import plugins
from salver.errors import error
from salver.frameworks import Columns, Predict, Saved, torch_tensors
from salver.frameworks.answers import promised
from salver.frameworks.texts import require_one_text, texts
from salver.release import MODEL_DIR
from salver.signature import Signature

TASKS: Final = {
    "TextClassificationPipeline": "text-classification",
    "ZeroShotClassificationPipeline": "zero-shot-classification",
    "TokenClassificationPipeline": "token-classification",
    "FillMaskPipeline": "fill-mask",
    "FeatureExtractionPipeline": "feature-extraction",
    "TextGenerationPipeline": "text-generation",
}
METHODS: Final = ("predict_proba", "predict")
POOLINGS: Final = ("mean", "cls")
PICKLES: Final = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib")
OFFLINE: Final = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
_KINDS: Final = (("transformers.pipelines.base", "Pipeline"), ("transformers.modeling_utils", "PreTrainedModel"))
_STEPS: Final = ("preprocess", "forward", "postprocess")
_SIDES: Final = ("padding_side", "truncation_side")

Answer = Callable[[list[str]], Any]


class Transformers:
    """The adapter of pipelines whose input is one text per row.

    Outputs by task: text-classification and zero-shot-classification answer `prediction` and `probabilities` (only the
    class with option `method` "predict"; one number where the model has one label); feature-extraction `embedding`,
    float32 of fixed size (option `pooling`: "mean" over the tokens, or "cls", the first); fill-mask `prediction`,
    `tokens` and `scores`; token-classification `prediction`, the entities as JSON text; text-generation `prediction`,
    always greedy. Option `device` ("cpu", "cuda:0") says where the model runs. The weights keep every bit. The rows of
    one call are padded together, so a number may differ from that of the row alone by 1e-6 of itself; with option
    `batch_size` 1 every row is computed alone, and equal bit by bit to what the pipeline answers to it.
    """

    name = "transformers"
    options = ("method", "pooling", "batch_size", "device")

    def handles(self, model: object) -> bool:
        """Whether this is a pipeline of transformers, of any task, or a bare model of it, which `save` refuses."""
        return any((kind.__module__, kind.__name__) in _KINDS for kind in type(model).__mro__)

    def save(self, model: Any, folder: Path) -> Saved:
        """Write weights, configuration and tokenizer to model/; raises `unsupported-model` for anything else."""
        task = _task(model)
        for part in (model, model.model, model.tokenizer):
            _require_known(part)
        target = folder / MODEL_DIR
        target.mkdir(parents=True, exist_ok=True)
        with without_bars():
            model.save_pretrained(str(target))
        require_no_pickle(target)
        attention = getattr(model.model.config, "_attn_implementation", None)
        options = {
            "task": task,
            "model_class": type(model.model).__name__,
            "parameters": {step: _plain(f"_{step}_params", model) for step in _STEPS},
            "generate": _generate(model),
            "tokenizer": {side: getattr(model.tokenizer, side) for side in _SIDES},
            **({"attention": attention} if attention in ("eager", "sdpa") else {}),
            "imports": ["torch", "transformers"],
        }
        return Saved("config.json", options, "")

    def load(self, folder: Path, entry: str, options: Mapping[str, Any], signature: Signature) -> Predict:
        """Load the local folder, offline; raises `untrusted-artifact` where it holds pickled weights."""
        del entry
        path = folder / MODEL_DIR
        require_no_pickle(path)
        os.environ.update(OFFLINE)
        return promised(_call(_pipeline(path, options), options, signature), signature)

    def in_memory(
        self, model: Any, folder: Path, options: Mapping[str, Any], signature: Signature
    ) -> Callable[[Columns], Any]:
        """The function that predicts with the pipeline as it is in memory, put into evaluation mode."""
        del folder
        torch_tensors.device(options)
        model.model.eval()
        return _call(model, options, signature)


FRAMEWORK = Transformers()


@contextmanager
def without_bars() -> Iterator[None]:
    """Within the block transformers draws no progress bars."""
    logging = importlib.import_module("transformers.utils.logging")
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def require_no_pickle(folder: Path) -> None:
    """Refuse a folder that holds pickled weights, with `untrusted-artifact` and what to do."""
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix in PICKLES)
    if found:
        raise error(
            "untrusted-artifact",
            "the model's folder holds pickled files, which can run any code when they are read",
            hint="load the model once, and save it again with save_pretrained: it writes model.safetensors",
            details=tuple(found),
        )


# Saving


def _task(pipe: Any) -> str:
    kind = type(pipe).__name__
    task = TASKS.get(kind)
    if task is None and not hasattr(pipe, "tokenizer"):
        raise error(
            "unsupported-model",
            f"a {kind} can't be released without its tokenizer",
            hint="release the pipeline of both: transformers.pipeline(task, model=…, tokenizer=…)",
        )
    if task is None:
        raise error(
            "unsupported-model",
            f"a {kind} can't be released",
            hint=f"one of {', '.join(sorted(TASKS.values()))}, or a class with load and predict",
        )
    return task


def _require_known(part: Any) -> None:
    """Refuse a class that transformers itself doesn't have: loading it would need code that came with weights."""
    if type(part).__module__.partition(".")[0] != "transformers":
        raise error(
            "unsupported-model",
            f"{type(part).__module__}.{type(part).__qualname__} is no class of transformers",
            hint="remote code is never run; merge adapters (merge_and_unload), or write a class with load and predict",
        )


def _plain(name: str, pipe: Any) -> dict[str, Any]:
    """Parameters that the pipeline was built with, as JSON keeps them."""
    return {key: _json(key, value) for key, value in sorted(getattr(pipe, name).items())}


def _json(name: str, value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _json(name, each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_json(name, each) for each in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise error(
        "unsupported-model", f"the pipeline's parameter {name} is a {type(value).__name__}, which can't be kept"
    )


def _generate(pipe: Any) -> dict[str, Any]:
    """The generation parameters that the pipeline was built with; earlier transformers keep them in one object."""
    given = getattr(pipe, "_generate_kwargs", None)
    if given is None:
        config = getattr(pipe, "generation_config", None)
        given = {} if config is None else config.to_diff_dict()
    return {key: _json(key, value) for key, value in sorted(given.items()) if key != "transformers_version"}


# Loading


def _pipeline(path: Path, options: Mapping[str, Any]) -> Any:
    try:
        import torch  # noqa: F401
        import transformers
    except ModuleNotFoundError as problem:
        raise plugins.missing_extra(problem.name or "transformers", needed_for="a transformers pipeline") from None
    transformers.utils.logging.disable_progress_bar()
    local = {"local_files_only": True, "trust_remote_code": False}
    dtype = "dtype" if int(transformers.__version__.partition(".")[0]) >= 5 else "torch_dtype"
    how = {dtype: "auto", **({"attn_implementation": options["attention"]} if "attention" in options else {})}
    kind = getattr(transformers, options["model_class"])
    model = kind.from_pretrained(str(path), use_safetensors=True, **local, **how)
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(path), **local, **options["tokenizer"])
    pipe = transformers.pipeline(
        options["task"],
        model=model.eval(),
        tokenizer=tokenizer,
        device=torch_tensors.device(options),
        **options.get("generate", {}),
    )
    for step, kept in options["parameters"].items():
        getattr(pipe, f"_{step}_params").update(_restored(pipe, kept))
    return pipe


def _restored(pipe: Any, kept: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as the pipeline wants them: those that it keeps as objects are made by itself."""
    restored = dict(kept)
    for name in ("aggregation_strategy", "function_to_apply"):
        if restored.get(name) is not None:
            restored.update(pipe._sanitize_parameters(**{name: restored[name]})[2])
    if "return_type" in restored:
        restored.update(pipe._sanitize_parameters(return_full_text=restored["return_type"] == 2)[2])
    if "target_ids" in restored:
        restored["target_ids"] = np.array(restored["target_ids"])
    return restored


# Predicting


def _call(pipe: Any, options: Mapping[str, Any], signature: Signature) -> Callable[[Columns], Any]:
    require_one_text(signature, "transformers")
    _choice(options, "method", METHODS)
    _choice(options, "pooling", POOLINGS)
    if options.get("method") == "predict_proba" and not _classifies(pipe, options["task"]):
        raise error(
            "unsupported-model",
            f"a pipeline for {options['task']} with this model has no probabilities of classes",
            hint="leave out the option method",
        )
    answer = _ANSWERS[options["task"]](pipe, options)
    return lambda columns: answer(texts(columns, signature))


def _classifies(pipe: Any, task: str) -> bool:
    if task == "text-classification":
        return len(pipe.model.config.id2label) > 1
    return task == "zero-shot-classification"


def _choice(options: Mapping[str, Any], name: str, allowed: Sequence[str]) -> None:
    if options.get(name, allowed[0]) not in allowed:
        raise error(
            "bad-settings", f"transformers: unknown {name} {options[name]!r}", hint=f"one of {', '.join(allowed)}"
        )


def _together(pipe: Any, rows: list[str], options: Mapping[str, Any]) -> int:
    """How many rows are padded together: what is asked for, else all; one where the tokenizer can't pad."""
    return int(options.get("batch_size") or len(rows)) if pipe.tokenizer.pad_token_id is not None else 1


def _classified(labels: Sequence[str], shares: Any, options: Mapping[str, Any]) -> Any:
    prediction = np.array(labels, object)[shares.argmax(axis=1)]
    if options.get("method") == "predict":
        return {"prediction": prediction}
    return {"prediction": prediction, "probabilities": shares}


def _classify(pipe: Any, options: Mapping[str, Any]) -> Answer:
    names = pipe.model.config.id2label
    labels = [str(names[place]) for place in range(len(names))]

    def answer(rows: list[str]) -> Any:
        found = pipe(rows, batch_size=_together(pipe, rows, options), top_k=None)
        scores = [{one["label"]: one["score"] for one in row} for row in found]
        shares = np.array([[row[label] for label in labels] for row in scores], np.float32)
        return {"prediction": shares[:, 0]} if len(labels) == 1 else _classified(labels, shares, options)

    return answer


def _zero_shot(pipe: Any, options: Mapping[str, Any]) -> Answer:
    labels = pipe._preprocess_params.get("candidate_labels")
    if not labels:
        raise error(
            "unsupported-model",
            "the pipeline has no candidate_labels",
            hint='name them when it is made: pipeline("zero-shot-classification", ..., candidate_labels=[...])',
        )

    def answer(rows: list[str]) -> Any:
        found = pipe(rows, batch_size=_together(pipe, rows, options))
        scores = [dict(zip(one["labels"], one["scores"], strict=True)) for one in found]
        return _classified(labels, np.array([[row[label] for label in labels] for row in scores], np.float32), options)

    return answer


def _entities(pipe: Any, options: Mapping[str, Any]) -> Answer:
    # One text per call: the scores stand in text, which has to be the same whatever the batch.
    del options

    def plain(value: Any) -> Any:
        return value.item() if isinstance(value, np.generic) else value

    def text(entities: Any) -> str:
        return msgspec.json.encode([{key: plain(one[key]) for key in one} for one in entities]).decode()

    return lambda rows: {"prediction": [text(row) for row in pipe(rows, batch_size=1)]}


def _fill_mask(pipe: Any, options: Mapping[str, Any]) -> Answer:
    def answer(rows: list[str]) -> Any:
        if any(row.count(pipe.tokenizer.mask_token) != 1 for row in rows):
            raise ValueError(f"a text must hold {pipe.tokenizer.mask_token} exactly once")
        found = pipe(rows, batch_size=_together(pipe, rows, options))
        found = [found] if len(rows) == 1 else found
        tokens = np.array([[one["token_str"] for one in row] for row in found], object)
        scores = np.array([[one["score"] for one in row] for row in found], np.float32)
        return {"prediction": tokens[:, 0], "tokens": tokens, "scores": scores}

    return answer


def _embed(pipe: Any, options: Mapping[str, Any]) -> Answer:
    import torch

    mean = options.get("pooling", "mean") == "mean"

    def pooled(rows: list[str]) -> Any:
        how = {**pipe._preprocess_params, "padding": len(rows) > 1, "return_tensors": "pt"}
        inputs = pipe.tokenizer(rows, **how).to(pipe.device)
        with torch.inference_mode():
            hidden = pipe.model(**inputs)[0].float()
        mask = inputs["attention_mask"]
        if not mean:
            return hidden[torch.arange(len(rows)), mask.argmax(dim=1)].cpu().numpy()
        weights = mask.unsqueeze(-1).float()
        return ((hidden * weights).sum(dim=1) / weights.sum(dim=1)).cpu().numpy()

    def answer(rows: list[str]) -> Any:
        step = _together(pipe, rows, options)
        return {"embedding": np.concatenate([pooled(rows[at : at + step]) for at in range(0, len(rows), step)])}

    return answer


def _write(pipe: Any, options: Mapping[str, Any]) -> Answer:
    # One prompt per call: padding changes last bits, and one changed token changes all that follow.
    del options
    return lambda rows: {
        "prediction": [one[0]["generated_text"] for one in pipe(rows, batch_size=1, do_sample=False)],
    }


_ANSWERS: Final[dict[str, Callable[[Any, Mapping[str, Any]], Answer]]] = {
    "text-classification": _classify,
    "zero-shot-classification": _zero_shot,
    "token-classification": _entities,
    "fill-mask": _fill_mask,
    "feature-extraction": _embed,
    "text-generation": _write,
}
