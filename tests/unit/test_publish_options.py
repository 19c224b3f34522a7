"""Options of a release: values of numpy and pandas become plain, and what a manifest can't keep is named."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest

from salver.errors import SalverError
from salver.publish.infer import infer_inputs
from salver.publish.options import answers_differ, categories, plain
from salver.publish.request import ReleaseRequest


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (np.str_("setosa"), "setosa"),
        (np.int64(4), 4),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (np.array(["a", "b"]), ["a", "b"]),
        (np.array(2.5), 2.5),
        (np.array(["a", 1], object), ["a", 1]),
        (list(np.array(["a", "b"])), ["a", "b"]),
        (pd.Series([1, 2]), [1, 2]),
        (pd.Index(["x"]), ["x"]),
        ((1, (2,)), [1, [2]]),
        ({np.str_("n"): {"m": np.int8(1)}}, {"n": {"m": 1}}),
        ({"b", "a"}, ["a", "b"]),
        (None, None),
    ],
)
def test_numpy_values_in_options_become_plain_ones(given: Any, kept: Any) -> None:
    made = plain({"option": given}, "iris")
    assert made == {"option": kept}
    assert msgspec.json.decode(msgspec.json.encode(made)) == made


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"a": [1, object()]}, "iris: options['option']['a'][1] is a object"),
        (lambda: 1, "iris: options['option'] is a function"),
        ({"missing": float("nan")}, "iris: options['option']['missing'] is nan"),
        (np.float32("inf"), "iris: options['option'] is inf"),
        ({(1, 2): 3}, "iris: options['option'] has a tuple as a key"),
    ],
)
def test_what_a_manifest_can_not_keep_is_named_by_its_place(given: Any, said: str) -> None:
    with pytest.raises(SalverError) as caught:
        plain({"option": given}, "iris")
    assert caught.value.code == "bad-settings"
    assert said in caught.value.message


def fails(columns: Any) -> Any:
    raise ValueError(columns)


def test_answers_differ_where_only_one_call_answers_or_both_answer_otherwise() -> None:
    columns = {"x": np.array([1.0, np.nan])}
    same, other = (lambda rows: {"y": rows["x"]}), (lambda rows: {"y": rows["x"] + 1})
    assert not answers_differ(same, same, columns)
    assert answers_differ(same, other, columns)
    assert answers_differ(fails, same, columns)
    assert not answers_differ(same, fails, columns)
    assert not answers_differ(fails, fails, columns)


def test_the_categories_of_a_private_column_are_not_kept() -> None:
    sizes = pd.CategoricalDtype(["small", "large"], ordered=True)
    frame = pd.DataFrame({"size": pd.Series(["large", "small"], dtype=sizes)})
    frame["months"] = pd.Series(np.array([12, 6], "int8")).astype("category")
    frame["street"] = pd.Series(["A", "B"], dtype="category")
    frame["age"] = [30.0, 40.0]
    request = ReleaseRequest(name="credit", model=None, examples=frame, private=("street",))
    assert categories(request, frame, infer_inputs(frame, private=request.private)) == {
        "categories": {
            "size": {"levels": ["small", "large"], "dtype": "", "ordered": True},
            "months": {"levels": [6, 12], "dtype": "int8", "ordered": False},
        }
    }
    assert categories(request, frame[["age"]], infer_inputs(frame[["age"]])) == {}
