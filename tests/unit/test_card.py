from __future__ import annotations

import json
import shlex
from typing import Any

import pytest
from msgspec.structs import replace

from salver import lock
from salver.packaging.card import card
from salver.release import File, Manifest, Serving, Tolerance
from salver.signature import Column, Signature, Tensor

CHURN = Manifest(
    format=1,
    model="churn",
    signature=Signature(
        (
            Column("age", "int", minimum=18, maximum=90),
            Column("income", "float", nullable=True, minimum=0.5, maximum=99000.25),
            Column("plan", "category", categories=("basic", "pro")),
            Column("note", "str", private=True),
        ),
        (Column("prediction", "category", categories=("no", "yes")), Tensor("probabilities", "float64", (-1, 2))),
    ),
    framework="sklearn",
    entry="model.skops",
    files=(
        File("code/features.py", 1234, "a" * 64),
        File("golden.jsonl", 99, "b" * 64),
        File("model/model.skops", 1_234_567, "c" * 64),
    ),
    python="3.11",
    lock="sha256:" + "d" * 64,
    determinism="tolerance",
    tolerances={"probabilities": Tolerance(1e-6, 1e-9)},
    golden_rows=32,
    side_effects="none",
    serving=Serving(max_batch=128),
)
LOCK = lock.write([("scikit-learn", "1.9.1"), ("numpy", "2.4.6")], "3.11").text
EXAMPLE = {"age": 31, "income": None, "plan": "pro", "note": "speaks of a person"}

EXPECTED = """\
# churn

Answers `prediction` and `probabilities` from 4 inputs. Framework: `sklearn`.

Who published this release, when and from which code stands in the registry: `salver show`.

## Call it

```sh
curl http://127.0.0.1:8080/models/churn/predict \\
  -H 'content-type: application/json' \\
  -d '{"age":31,"income":null,"plan":"pro","note":"text"}'
```

A list of such objects is answered by a list of the same length.

## Inputs

| name | type |
| --- | --- |
| `age` | int, 18 to 90 |
| `income` | float, nullable, 0.5 to 99000.2 |
| `plan` | category, basic\\|pro |
| `note` | str, private |

## Outputs

| name | type |
| --- | --- |
| `prediction` | category, no\\|yes |
| `probabilities` | float64\\[any, 2\\] |

## Behaviour

32 golden rows travel in the release; they must come back within these tolerances before a worker takes traffic:

| output | relative | absolute |
| --- | --- | --- |
| `probabilities` | 1e-06 | 1e-09 |

Predicting has no side effects: requests may be retried, shadowed and replayed.

Loading its files can't run code that they hold, other than the modules in `code/`.

At most 128 rows are given to one call of the model.

## Environment

Python 3.11, with exactly these packages:

| package | version |
| --- | --- |
| `numpy` | `2.4.6` |
| `scikit-learn` | `1.9.1` |

## Files

| file | bytes |
| --- | --- |
| `code/features.py` | 1,234 |
| `model/model.skops` | 1,234,567 |
"""


def curl_data(text: str) -> str:
    """What the card's example command sends."""
    command = text.split("```sh\n")[1].split("\n```")[0].replace("\\\n", " ")
    words = shlex.split(command)
    return words[words.index("-d") + 1]


def with_inputs(*inputs: Column | Tensor) -> Manifest:
    return replace(CHURN, signature=Signature(inputs, CHURN.signature.outputs))


def test_the_card_of_a_release_reads_like_this() -> None:
    assert card(CHURN, example=EXAMPLE, lock_text=LOCK) == EXPECTED


def test_no_private_value_is_in_the_card() -> None:
    secret = with_inputs(Column("x", "int", minimum=41, maximum=43, private=True))
    text = card(secret, example={"x": 42}, lock_text=LOCK)
    assert curl_data(text) == '{"x":0}'
    assert not [value for value in ("41", "42", "43") if value in text]


def test_an_artifact_that_may_run_code_is_said_with_the_reason() -> None:
    text = card(replace(CHURN, unsafe="joblib pickle: skops\ncan't keep *it*"))
    assert r"**Loading it can run code from its files**: joblib pickle: skops can't keep \*it\*." in text


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"determinism": "exact"}, "32 golden rows travel in the release; they must come back exactly"),
        ({"determinism": "schema-only"}, "may be answered with other values each time"),
        ({"golden_rows": 1}, "1 golden row travels in the release; it must"),
        ({"golden_rows": 0, "determinism": "exact"}, "No golden rows travel in the release"),
        ({"side_effects": "unsafe"}, "requests are never retried or replayed"),
        ({"side_effects": "idempotent"}, "may safely happen twice"),
        ({"uses": ("fraud@3",)}, "It calls other releases: `fraud@3`."),
        ({"files": ()}, "The release holds no files of the model's own."),
        ({"files": tuple(File(f"model/{i}", 1, "a" * 64) for i in range(25))}, "and 5 more."),
    ],
)
def test_each_fact_has_its_sentence(changed: dict[str, Any], said: str) -> None:
    assert said in card(replace(CHURN, **changed))


def test_the_example_can_be_pasted_into_a_shell() -> None:
    row = {"it's": "a 'quoted' $HOME `name` \\ and\nmore"}
    text = card(with_inputs(Column("it's", "str")), example=row)
    assert json.loads(curl_data(text)) == row


def test_without_an_example_every_type_gets_a_value_it_accepts() -> None:
    inputs = (
        Column("f", "float"),
        Column("i", "int", minimum=3.0, maximum=4.0),
        Column("b", "bool"),
        Column("s", "str"),
        Column("c", "category", categories=("x", "y")),
        Column("d", "datetime"),
        Column("n", "int", nullable=True),
        Tensor("t", "int8", (-1, 2, -1)),
    )
    assert json.loads(curl_data(card(with_inputs(*inputs)))) == {
        "f": 0.0,
        "i": 3,
        "b": False,
        "s": "text",
        "c": "x",
        "d": "2000-01-01T00:00:00Z",
        "n": None,
        "t": [[0], [0]],
    }


def test_an_example_that_is_too_long_to_print_is_named_as_a_file() -> None:
    assert curl_data(card(with_inputs(Tensor("image", "float32", (-1, 224, 224, 3))))) == "@row.json"


def test_names_can_t_break_out_of_the_tables() -> None:
    text = card(with_inputs(Column("a|b`c\n# d", "category", categories=("<b>", "x|y"))))
    assert r"| `` a\|b`c # d `` | category, \<b\>\|x\|y |" in text.splitlines()


def test_the_globals_of_a_pickle_are_named_by_package() -> None:
    names = ["numpy:ndarray", "builtins:slice", "numpy:dtype"]
    text = card(replace(CHURN, unsafe="joblib pickle", options={"pickle": True, "globals": names}))
    assert "names these 3 globals" in text
    assert "| `numpy` | `numpy:dtype`, `numpy:ndarray` |" in text
    assert "globals" not in card(CHURN)
