"""sentence-transformers models, saved as a local folder: safetensors, configuration and tokenizer of every module."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from salver import plugins
from salver.errors import error
from salver.frameworks import Columns, Predict, Saved, torch_tensors
from salver.frameworks.answers import promised
from salver.frameworks.texts import require_one_text, texts
from salver.frameworks.transformers import OFFLINE, require_no_pickle, without_bars
from salver.release import MODEL_DIR
from salver.signature import Signature

METHODS: Final = ("encode", "encode_query", "encode_document")
ARGUMENTS: Final = ("normalize_embeddings", "prompt_name", "prompt", "truncate_dim")


class SentenceTransformers:
    """The adapter of sentence-transformers; each text is answered by its `embedding`, float32 of fixed size.

    Options: `method`, one of `METHODS`; `normalize_embeddings`, `prompt_name`, `prompt` and `truncate_dim`, as `encode`
    takes them; `device` ("cpu", "cuda:0"); `batch_size`, how many rows are padded together (all of a call). The weights
    keep every bit; because of the padding a number may differ from that of the row alone by 1e-6 of the largest.
    """

    name = "sentence-transformers"
    options = ("method", *ARGUMENTS, "batch_size", "device")

    def handles(self, model: object) -> bool:
        """Whether this is a SentenceTransformer, or an object of a class made from it."""
        return any(
            kind.__name__ == "SentenceTransformer" and kind.__module__.partition(".")[0] == "sentence_transformers"
            for kind in type(model).__mro__
        )

    def save(self, model: Any, folder: Path) -> Saved:
        """Write every module to model/; raises `unsupported-model` where one is no module of sentence-transformers."""
        for part in (model, *model.children()):
            if type(part).__module__.partition(".")[0] != "sentence_transformers":
                raise error(
                    "unsupported-model",
                    f"{type(part).__module__}.{type(part).__qualname__} is no class of sentence-transformers",
                    hint="remote code is never run; write a class with load and predict for a module of your own",
                )
        target = folder / MODEL_DIR
        target.mkdir(parents=True, exist_ok=True)
        with without_bars():
            model.save_pretrained(str(target), create_model_card=False, safe_serialization=True)
        require_no_pickle(target)
        return Saved("modules.json", {"imports": ["sentence_transformers", "torch", "transformers"]}, "")

    def load(self, folder: Path, entry: str, options: Mapping[str, Any], signature: Signature) -> Predict:
        """Load the local folder, offline; raises `untrusted-artifact` where it holds pickled weights."""
        del entry
        path = folder / MODEL_DIR
        require_no_pickle(path)
        os.environ.update(OFFLINE)
        return promised(_call(_model(path, options), options, signature), signature)

    def in_memory(
        self, model: Any, folder: Path, options: Mapping[str, Any], signature: Signature
    ) -> Callable[[Columns], Any]:
        """The function that embeds with the model as it is in memory."""
        del folder
        torch_tensors.device(options)
        return _call(model, options, signature)


FRAMEWORK = SentenceTransformers()


def _model(path: Path, options: Mapping[str, Any]) -> Any:
    try:
        import sentence_transformers
        import transformers
    except ModuleNotFoundError as problem:
        raise plugins.missing_extra(
            problem.name or "sentence_transformers", needed_for="a sentence-transformers model"
        ) from None
    transformers.utils.logging.disable_progress_bar()
    return sentence_transformers.SentenceTransformer(
        str(path), device=str(torch_tensors.device(options)), local_files_only=True, trust_remote_code=False
    )


def _call(model: Any, options: Mapping[str, Any], signature: Signature) -> Callable[[Columns], Any]:
    require_one_text(signature, "sentence-transformers")
    method = options.get("method", "encode")
    if method not in METHODS:
        raise error(
            "bad-settings", f"sentence-transformers: unknown method {method!r}", hint=f"one of {', '.join(METHODS)}"
        )
    encode = getattr(model, method)
    given = {name: options[name] for name in ARGUMENTS if name in options}

    def call(columns: Columns) -> Any:
        rows = texts(columns, signature)
        return {
            "embedding": encode(
                rows, batch_size=options.get("batch_size") or len(rows), show_progress_bar=False, **given
            )
        }

    return call
