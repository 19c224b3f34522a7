"""statsmodels results, fitted from a formula or from arrays, pickled without the rows that they were fitted on.

What statsmodels itself pickles holds the training data: its formulas are fitted again when it is read. Here the
design travels instead (levels, means, knots), with the few names from outside that the formula uses. The numbers keep
their bits; a matrix product of another number of rows may differ in the last digit, so answers agree to 1e-12.
"""

from __future__ import annotations

import ast
import copyreg
import importlib
import io
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np

from salver import plugins, tables
from salver.errors import error
from salver.frameworks import Columns, Predict, Saved, pickled
from salver.frameworks.answers import promised
from salver.release import MODEL_DIR
from salver.signature import Signature, Tensor

MAX_BATCH: Final = 1024
"""A formula costs milliseconds however few its rows."""

METHODS: Final = ("predict", "predict_proba")

ENTRY: Final = "model.pickle"

_ROW_WISE: Final = (
    "statsmodels.regression.linear_model", "statsmodels.regression.quantile_regression",
    "statsmodels.genmod.generalized_linear_model", "statsmodels.discrete.discrete_model",
    "statsmodels.robust.robust_linear_model", "statsmodels.miscmodels.ordinal_model",
)  # fmt: skip
"""Modules whose models answer each row by itself, and of which it was checked that no row stays in what is saved."""

_DESIGN: Final = ("model_spec", "design_info", "formula", "const_idx", "k_constant", "_param_names", "_cov_names")
"""What is kept of a model's data: all but rows and their labels."""


class Statsmodels:
    """The adapter of statsmodels.

    Inputs are the columns that the formula names, or those of the array (a `const` that `add_constant` put there is
    added again), and `exposure` or `offset` where the model was fitted with one. Options: `method`, one of `METHODS`;
    `predict` answers what `results.predict` does, `predict_proba` the class as `prediction` and the share of each as
    `probabilities`.
    """

    name = "statsmodels"
    options = ("method",)

    def handles(self, model: object) -> bool:
        """Whether a base of the model's class comes from statsmodels and it predicts."""
        if isinstance(model, type):
            return False
        bases = (base.__module__.partition(".")[0] for base in type(model).__mro__)
        return "statsmodels" in bases and hasattr(model, "predict")

    def save(self, model: Any, folder: Path) -> Saved:
        """Write model/model.pickle; raises `unsupported-model` for what doesn't predict row by row."""
        _require_row_wise(model)
        target = folder / MODEL_DIR
        target.mkdir(parents=True, exist_ok=True)
        design = _design(model)
        slim, reducers = _without_rows(model, design["columns"] or ())
        names = pickled.save(slim, target / ENTRY, reducers)
        imports = pickled.needed(names | {"statsmodels", "pandas"} | {design["formula"] or "statsmodels"})
        options = {**design, pickled.OPTION: sorted(names), "imports": imports}
        what = "its formula is Python code" if design["formula"] else "statsmodels has no other format"
        return Saved(ENTRY, options, f"pickle: {what}", MAX_BATCH)

    def load(self, folder: Path, entry: str, options: Mapping[str, Any], signature: Signature) -> Predict:
        """Load the artifact below `folder`; raises `untrusted-artifact` before anything forbidden is built."""
        try:
            importlib.import_module("statsmodels.api")
        except ModuleNotFoundError as problem:
            raise plugins.missing_extra(problem.name or "statsmodels", needed_for="a statsmodels model") from None
        model = pickled.load(folder / MODEL_DIR / entry, options.get(pickled.OPTION))
        return promised(self.in_memory(model, folder, options, signature), signature)

    def columns(self, model: Any) -> tuple[str, ...]:
        """The names of the inputs, in order; () where the model was fitted on an array without names."""
        _require_row_wise(model)
        design = _design(model)
        return (*design["columns"], *design["extra"]) if design["columns"] else ()

    def in_memory(
        self, model: Any, folder: Path, options: Mapping[str, Any], signature: Signature
    ) -> Callable[[Columns], Any]:
        """The function that predicts with `model` as it is in memory; its raw answers show what the outputs are."""
        del folder
        method, labels = options.get("method", "predict"), options.get("labels", ())
        if method not in METHODS:
            raise error("bad-settings", f"statsmodels: unknown method {method!r}", hint=f"one of {', '.join(METHODS)}")
        if method == "predict_proba" and not labels:
            raise error("unsupported-model", f"{_kind(model)} has no classes", hint="choose method = 'predict'")
        arrange = _arrangement(options, signature)
        extra = [str(name) for name in options.get("extra", ())]

        def predict(columns: Columns) -> Any:
            with _engine(options.get("formula", "")):
                raw = np.asarray(model.predict(arrange(columns), **{name: columns[name] for name in extra}))
            return _classes(raw, np.asarray(labels)) if method == "predict_proba" else raw

        return predict


FRAMEWORK = Statsmodels()


def _inner(results: Any) -> Any:
    """The results themselves, without the wrapper that names their parts."""
    return vars(results).get("_results", results)


def _kind(results: Any) -> str:
    return type(_inner(results)).__name__.removesuffix("Wrapper")


def _require_row_wise(results: Any) -> None:
    inner = _inner(results)
    if not hasattr(inner, "params") or not hasattr(inner, "model"):
        raise error("unsupported-model", f"{_kind(results)} is not fitted", hint="release what its fit() returns")
    kind = type(inner.model)
    if kind.__module__.startswith("statsmodels.tsa."):
        raise error(
            "unsupported-model",
            f"{kind.__name__} forecasts steps of one series; a request has rows, each answered by itself",
            hint="write a salver.Model that loads it and whose rows name the step to forecast",
        )
    if not any(base.__module__ in _ROW_WISE for base in kind.__mro__):
        raise error(
            "unsupported-model",
            f"{kind.__name__} is none of the statsmodels models that are known to answer row by row",
            hint="OLS, WLS, GLS, GLM, Logit, Probit, MNLogit, Poisson, NegativeBinomial, RLM, QuantReg and "
            "OrderedModel are; for another write a salver.Model",
        )


def _design(results: Any) -> dict[str, Any]:
    """How the model's inputs are made, as options.

    `formula` is the package that reads the formula, or ''; `columns` the inputs by name, or empty; `constant` the place
    of a column of ones that requests don't send, or None; `extra` the inputs beside the design; `labels` the classes.
    """
    inner = _inner(results)
    model, data = inner.model, inner.model.data
    extra = [name for name in ("offset", "exposure") if len(np.shape(getattr(model, name, 0))) > 0]
    found: dict[str, Any] = {"formula": "", "columns": [], "constant": None, "extra": extra, "labels": _labels(inner)}
    spec = getattr(data, "model_spec", None)
    if spec is not None:
        return {**found, "formula": type(spec).__module__.partition(".")[0], "columns": _formula_columns(spec, data)}
    names = [str(name) for name in data.xnames] if data.xnames else []
    names = names[: model.exog.shape[1] if model.exog is not None else getattr(model, "k_vars", None)]
    place = data.const_idx
    if place is not None and names[place : place + 1] == ["const"] and model.exog is not None:
        found["constant"] = int(place) if bool(np.all(model.exog[:, place] == 1.0)) else None
    if type(data).__name__ == "PandasData":
        found["columns"] = [name for at, name in enumerate(names) if at != found["constant"]]
    found["width"] = len(names)
    return found


def _formula_columns(spec: Any, data: Any) -> list[str]:
    """The columns that the right side of a formula names, in the order of the data where that is still there."""
    frame = getattr(data, "frame", None)
    if hasattr(spec, "required_variables"):
        used = {str(name): None for name in sorted(spec.required_variables)}
    else:
        used = {}
        for factor, info in spec.factor_infos.items():
            outer = info.state["eval_env"].namespace if "eval_env" in info.state else {}
            known = frame.columns if frame is not None else ()
            for name in _names(factor.code):
                if name in known or (frame is None and name not in outer):
                    used[name] = None
    if frame is None:
        return list(used)
    return [str(name) for name in frame.columns if name in used]


def _names(code: str) -> Iterator[str]:
    """The names in a factor of a formula, and those it quotes: `Q("debt to income")`."""
    for node in ast.walk(ast.parse(code, mode="eval")):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Q":
            yield from (arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str))


def _labels(inner: Any) -> list[Any]:
    """The classes in the order of their shares; [] where the model has none."""
    model = inner.model
    kinds = {base.__name__ for base in type(model).__mro__}
    if "OrderedModel" in kinds:
        return [value.item() if hasattr(value, "item") else value for value in model.labels]
    if "MultinomialModel" in kinds:
        named = [str(name) for _, name in sorted(model._ynames_map.items())]
        return [int(name) for name in named] if all(name.isdigit() for name in named) else named
    binomial = "GLM" in kinds and type(model.family).__name__ == "Binomial" and bool(np.all(model.n_trials == 1))
    return [0, 1] if "BinaryModel" in kinds or binomial else []


def _classes(raw: Any, labels: Any) -> Columns:
    shares = np.column_stack([1 - raw, raw]) if raw.ndim == 1 else raw
    likely = labels[np.nan_to_num(shares).argmax(axis=1)]
    return {"prediction": likely.astype(object) if likely.dtype.kind == "U" else likely, "probabilities": shares}


def _arrangement(options: Mapping[str, Any], signature: Signature) -> Callable[[Columns], Any]:
    """How the signature's columns become what `predict` takes: a DataFrame for a formula, else a float64 matrix."""
    fields = {field.name: field for field in signature.inputs if field.name not in options.get("extra", ())}
    wanted = [str(name) for name in options.get("columns", ())]
    missing = [
        *(set(wanted) - set(fields)),
        *(name for name in options.get("extra", ()) if name not in _all(signature)),
    ]
    if missing:
        raise error(
            "bad-signature",
            f"the model was fitted with inputs that the signature doesn't have: {', '.join(sorted(missing))}",
        )
    if options.get("formula"):
        ordered = tuple(fields[name] for name in wanted)
        return lambda columns: tables.to_dataframe(columns, ordered)
    names, place, width = wanted or list(fields), options.get("constant"), options.get("width")
    only = fields[names[0]]

    def arrange(columns: Columns) -> Any:
        tensor = len(names) == 1 and isinstance(only, Tensor)
        rows = np.asarray(columns[names[0]], float) if tensor else tables.matrix(columns, names)
        return rows if place is None or rows.shape[1] == width else np.insert(rows, place, 1.0, axis=1)

    return arrange


def _all(signature: Signature) -> set[str]:
    return {field.name for field in signature.inputs}


@contextmanager
def _engine(name: str) -> Iterator[None]:
    """Let statsmodels read formulas with the package that read this one; the choice is its global one."""
    if not name:
        yield
        return
    options = importlib.import_module("statsmodels.formula").options
    before = options.formula_engine
    options.formula_engine = name
    try:
        yield
    finally:
        options.formula_engine = before


# What is saved: a copy without rows


def _without_rows(results: Any, columns: Any) -> tuple[Any, pickled.Reducers]:
    """A copy that predicts the same and holds no training row, and how to pickle it; the object is not touched."""
    inner = _inner(results)
    reducers = _reducers(inner.model.data, frozenset(columns))
    lengths = {len(rows) for rows in (inner.model.endog, getattr(inner.model.data, "frame", None)) if rows is not None}
    lengths -= set(range(np.size(inner.params) + 1))  # so few rows can't be told from coefficients by their number

    class Copier(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            shape = getattr(value, "shape", ()) if not isinstance(value, type) else ()
            return "rows" if isinstance(shape, tuple) and not lengths.isdisjoint(shape) else None

    class Reader(pickle.Unpickler):
        def persistent_load(self, pid: Any) -> None:
            del pid

    buffer = io.BytesIO()
    try:
        copier = Copier(buffer, protocol=5)
        copier.dispatch_table = {**copyreg.dispatch_table, **reducers}
        copier.dump(inner)
    except (pickle.PicklingError, AttributeError, TypeError) as problem:
        hint = "a formula may use columns, and functions that a module defines by name"
        raise pickled.unsavable(_kind(results), problem, hint) from None
    slim = Reader(io.BytesIO(buffer.getvalue())).load()
    slim.remove_data()
    return slim, reducers


def _reducers(data: Any, columns: frozenset[str]) -> dict[type, Callable[[Any], Any]]:
    def imported(module: ModuleType) -> Any:
        return pickled.module, (module.__name__,)

    def design(one: Any) -> Any:
        return _as_it_is(one, {name: value for name, value in vars(one).items() if name in _DESIGN})

    return {ModuleType: imported, type(data): design, **_of_patsy(columns)}


def _as_it_is(one: Any, state: dict[str, Any]) -> Any:
    return copyreg.__newobj__, (type(one),), state  # type: ignore[attr-defined]


def _of_patsy(columns: frozenset[str]) -> dict[type, Callable[[Any], Any]]:
    """Patsy refuses to pickle its designs, to stay free to change them; a release pins patsy's version."""
    if "patsy" not in sys.modules:
        return {}
    kinds = {
        kind
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] == "patsy"
        for kind in vars(module).values()
        if isinstance(kind, type) and _refuses(kind)
    }
    table: dict[type, Callable[[Any], Any]] = {kind: lambda one: _as_it_is(one, dict(vars(one))) for kind in kinds}
    table[importlib.import_module("patsy.eval").EvalEnvironment] = partial(_environment, columns)
    return table


def _refuses(kind: type) -> bool:
    return any("__getstate__" in vars(base) for base in kind.__mro__ if base.__module__.startswith("patsy"))


def _environment(columns: frozenset[str], one: Any) -> Any:
    """Names from outside a formula, without those that a column hides and without what is only used for fitting."""
    state = dict(vars(one))
    state["_namespaces"] = [
        {
            name: value
            for name, value in names.items()
            if name not in columns and not hasattr(value, "__patsy_stateful_transform__")
        }
        for names in state["_namespaces"]
    ]
    return _as_it_is(one, state)
