"""What `salver diff` says of two releases."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from salver.cli.comparison import Changed, Contents, GlobalChanges, compare
from salver.golden import Row
from salver.release import File, Manifest, Serving
from salver.signature import Column, Signature

SIGNATURE = Signature((Column("age", "int"),), (Column("prediction", "float"),))
MANIFEST = Manifest(
    format=1, model="churn", signature=SIGNATURE, framework="sklearn", entry="model.skops",
    files=(File("model/model.skops", 10, "a" * 64), File("card.md", 5, "b" * 64)), python="3.11", lock="sha256:1",
)  # fmt: skip
LOCK = "numpy==2.0.0\nscikit-learn==1.5.0\n"
GOLDEN = [Row({"age": 1}, {"prediction": 0.5}), Row({"age": 2}, {"prediction": 0.25})]
OLD = Contents(MANIFEST, LOCK, GOLDEN)


def differences(**new: Any) -> Any:
    return compare(("churn@1", "churn@2"), OLD, OLD._replace(**new))


def test_a_release_does_not_differ_from_itself() -> None:
    result = differences()
    assert result.same
    assert (result.golden.shared, result.golden.differ) == (2, 0)


def test_packages_that_came_went_or_moved_are_named() -> None:
    result = differences(lock="numpy==2.1.0\npandas==2.2.0\n")
    assert result.packages == [
        Changed("numpy", "2.0.0", "2.1.0"),
        Changed("scikit-learn", "1.5.0", ""),
        Changed("pandas", "", "2.2.0"),
    ]
    assert not result.same


def test_files_and_facts_that_changed_are_named_and_others_are_not() -> None:
    files = (File("model/model.skops", 10, "c" * 64), MANIFEST.files[1])
    result = differences(manifest=replace(MANIFEST, files=files, serving=Serving(max_batch=8), unsafe="pickle"))
    assert [change.name for change in result.files] == ["model/model.skops"]
    assert {change.name for change in result.facts} == {"unsafe", "serving.max_batch"}


def test_each_option_that_changed_is_a_line_of_its_own() -> None:
    old = OLD._replace(
        manifest=replace(MANIFEST, options={"method": "predict", "imports": ["sklearn"], "device": "cpu"})
    )
    new = OLD._replace(manifest=replace(MANIFEST, options={"method": "predict_proba", "imports": ["sklearn"]}))
    assert compare(("churn@1", "churn@2"), old, new).facts == [
        Changed("options.method", "predict", "predict_proba"),
        Changed("options.device", "cpu", ""),
    ]


def test_what_a_pickle_may_name_is_compared_and_does_not_hide_among_the_options() -> None:
    old = OLD._replace(manifest=replace(MANIFEST, options={"pickle": True, "globals": ["numpy:dtype", "os:remove"]}))
    new = old._replace(manifest=replace(MANIFEST, options={"pickle": True, "globals": ["numpy:dtype", "os:system"]}))
    result = compare(("churn@1", "churn@2"), old, new)
    assert result.globals == GlobalChanges(["os:system"], ["os:remove"])
    assert result.facts == []
    assert not result.same
    assert compare(("churn@1", "churn@2"), OLD, new).globals.added == ["numpy:dtype", "os:system"]


def test_what_breaks_clients_is_told() -> None:
    signature = Signature((*SIGNATURE.inputs, Column("plan", "str")), SIGNATURE.outputs)
    result = differences(manifest=replace(MANIFEST, signature=signature))
    assert [change.kind for change in result.signature] == ["breaking"]


def test_golden_answers_are_compared_where_both_releases_have_the_same_request() -> None:
    golden = [Row({"age": 9}, {"prediction": 9.0}), Row({"age": 2}, {"prediction": 0.5})]
    result = differences(golden=golden)
    assert (result.golden.shared, result.golden.differ) == (1, 1)
    assert result.golden.examples == ["row 0, prediction: expected 0.25, got 0.5"]


def test_the_order_of_keys_in_a_request_makes_no_other_request() -> None:
    old = OLD._replace(golden=[Row({"a": 1, "b": 2}, {"prediction": 1.0})])
    new = OLD._replace(golden=[Row({"b": 2, "a": 1}, {"prediction": 1.0})])
    assert compare(("x@1", "x@2"), old, new).golden.shared == 1


def test_the_values_of_a_private_output_are_not_shown() -> None:
    signature = Signature(SIGNATURE.inputs, (Column("prediction", "float", private=True),))
    old = OLD._replace(manifest=replace(MANIFEST, signature=signature))
    new = old._replace(golden=[Row({"age": 1}, {"prediction": 0.75})])
    result = compare(("churn@1", "churn@2"), old, new)
    assert result.golden.differ == 1
    assert "0.75" not in result.golden.examples[0]
