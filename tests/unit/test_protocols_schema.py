"""What a signature says of itself: JSON Schema, an example row, V2 metadata; and the bodies of problems."""

from __future__ import annotations

import json

import pytest

from salver import __version__
from salver.errors import CODES, error, problem_json
from salver.protocols.schema import example_row, input_schema, output_schema
from salver.protocols.v2.metadata import model_config, model_metadata, repository_index, server_metadata
from salver.signature import Column, Field, Signature, Tensor

OUTPUTS = (Column("prediction", "float"),)


def _property(field: Field) -> object:
    return input_schema(Signature(inputs=(field,), outputs=OUTPUTS))["properties"][field.name]


@pytest.mark.parametrize(
    ("field", "schema"),
    [
        (Column("x", "float"), {"type": "number", "format": "double"}),
        (Column("x", "int", nullable=True), {"type": "integer", "format": "int64", "nullable": True}),
        (Column("x", "bool", optional=True), {"type": "boolean", "nullable": True}),
        (Column("x", "datetime"), {"type": "string", "format": "date-time"}),
        (Column("x", "bytes"), {"type": "string", "format": "byte"}),
        (
            Column("x", "float", minimum=0.0, maximum=2.5),
            {"type": "number", "format": "double", "description": "seen in training: 0 to 2.5"},
        ),
        (
            Column("x", "float", minimum=0.5),
            {"type": "number", "format": "double", "description": "seen in training: from 0.5"},
        ),
        (
            Column("x", "int", maximum=9),
            {"type": "integer", "format": "int64", "description": "seen in training: up to 9"},
        ),
        (
            Column("x", "int", minimum=0, maximum=9, enforce=True),
            {"type": "integer", "format": "int64", "minimum": 0, "maximum": 9},
        ),
        (
            Column("x", "category", categories=("a", "b")),
            {"type": "string", "description": "seen in training: a, b"},
        ),
        (
            Column("x", "category", categories=tuple(map(str, range(22)))),
            {"type": "string", "description": f"seen in training: {', '.join(map(str, range(20)))} and 2 more"},
        ),
        (Column("x", "category", categories=("a", "b"), enforce=True), {"type": "string", "enum": ["a", "b"]}),
        (
            Column("x", "category", categories=("a",), enforce=True, nullable=True),
            {"type": "string", "nullable": True, "enum": ["a", None]},
        ),
        (Column("x", "category", categories=("a",), private=True), {"type": "string"}),
        (Column("x", "category", categories=("a",), private=True, enforce=True), {"type": "string"}),
        (Column("x", "float", minimum=1.0, private=True), {"type": "number", "format": "double"}),
        (
            Column("x", "float", minimum=1.0, private=True, enforce=True),
            {"type": "number", "format": "double", "minimum": 1.0},
        ),
        (Tensor("x", "float32", (-1,)), {"type": "number", "format": "float"}),
        (
            Tensor("x", "uint8", (-1, 2, -1)),
            {
                "type": "array",
                "items": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 255}},
                "minItems": 2,
                "maxItems": 2,
            },
        ),
        (
            Tensor("x", "int16", (-1, -1)),
            {"type": "array", "items": {"type": "integer", "minimum": -32768, "maximum": 32767}},
        ),
        (Tensor("x", "str", (-1, -1)), {"type": "array", "items": {"type": "string"}}),
        (Tensor("x", "bool", (-1, -1)), {"type": "array", "items": {"type": "boolean"}}),
    ],
)
def test_the_schema_of_an_input_says_what_is_checked_and_describes_what_is_not(field: Field, schema: object) -> None:
    assert _property(field) == schema


def test_only_optional_inputs_may_be_absent() -> None:
    inputs = (Column("a", "float"), Column("b", "float", nullable=True), Column("c", "float", optional=True))
    schema = input_schema(Signature(inputs=inputs, outputs=OUTPUTS))
    assert (schema["type"], schema["required"]) == ("object", ["a", "b"])
    # OpenAPI 3.0 forbids an empty list of required properties.
    assert "required" not in input_schema(Signature(inputs=inputs[2:], outputs=OUTPUTS))


def test_the_schema_of_an_answer_allows_null_where_an_output_does() -> None:
    outputs = (
        Column("a", "float"),
        Column("b", "float", non_finite=True),
        Column("c", "category", nullable=True),
        Tensor("d", "float64", (-1, 2), non_finite=True),
    )
    number = {"type": "number", "format": "double"}
    assert output_schema(Signature(inputs=(Column("x", "float"),), outputs=outputs)) == {
        "type": "object",
        "properties": {
            "a": number,
            "b": number | {"nullable": True},
            "c": {"type": "string", "nullable": True},
            "d": {"type": "array", "items": number | {"nullable": True}, "minItems": 2, "maxItems": 2},
        },
        "required": ["a", "b", "c", "d"],
    }


def test_an_example_row_lies_within_what_training_saw_except_for_private_fields() -> None:
    signature = Signature(
        inputs=(
            Column("a", "float", minimum=1.0, maximum=2.0),
            Column("b", "int", minimum=18, maximum=90),
            Column("c", "category", categories=("red", "green")),
            Column("d", "category", categories=("secret",), private=True),
            Column("e", "float", minimum=1e9, private=True),
            Column("f", "datetime", nullable=True),
            Column("g", "float", minimum=3.0),
            Tensor("h", "float32", (-1, 2, -1)),
        ),
        outputs=OUTPUTS,
    )
    assert example_row(signature) == {
        "a": 1.5,
        "b": 54,
        "c": "red",
        "d": "text",
        "e": 0.0,
        "f": "2024-01-31T12:00:00Z",
        "g": 3.0,
        "h": [[0.0], [0.0]],
    }


def test_v2_metadata_names_every_tensor() -> None:
    signature = Signature(
        inputs=(Column("a", "float"), Column("b", "datetime"), Tensor("t", "uint8", (-1, 28, 28))),
        outputs=(Column("prediction", "int"), Column("ok", "bool"), Tensor("p", "float16", (-1, 3))),
    )
    assert model_metadata("churn", [5, 7], "sklearn", signature) == {
        "name": "churn",
        "versions": ["5", "7"],
        "platform": "sklearn",
        "inputs": [
            {"name": "a", "datatype": "FP64", "shape": [-1]},
            {"name": "b", "datatype": "BYTES", "shape": [-1]},
            {"name": "t", "datatype": "UINT8", "shape": [-1, 28, 28]},
        ],
        "outputs": [
            {"name": "prediction", "datatype": "INT64", "shape": [-1]},
            {"name": "ok", "datatype": "BOOL", "shape": [-1]},
            {"name": "p", "datatype": "FP16", "shape": [-1, 3]},
        ],
    }
    assert server_metadata() == {
        "name": "salver",
        "version": __version__,
        "extensions": ["binary_tensor_data", "model_repository", "model_configuration"],
    }


def test_v2_configuration_gives_the_shape_of_one_row_in_tritons_words() -> None:
    signature = Signature(
        inputs=(Column("a", "float"), Tensor("t", "uint8", (-1, 28, 28))),
        outputs=(Column("label", "str"), Tensor("p", "float16", (-1,))),
    )
    assert model_config("churn", [5, 7], "sklearn", 64, signature) == {
        "name": "churn",
        "platform": "sklearn",
        "backend": "salver",
        "version_policy": {"specific": {"versions": [5, 7]}},
        "max_batch_size": 64,
        "input": [
            {"name": "a", "data_type": "TYPE_FP64", "dims": [1]},
            {"name": "t", "data_type": "TYPE_UINT8", "dims": [28, 28]},
        ],
        "output": [
            {"name": "label", "data_type": "TYPE_STRING", "dims": [1]},
            {"name": "p", "data_type": "TYPE_FP16", "dims": [1]},
        ],
    }


def test_v2_metadata_says_which_inputs_may_be_null_or_absent() -> None:
    signature = Signature(
        inputs=(Column("a", "int", nullable=True), Column("b", "str", optional=True), Column("c", "float")),
        outputs=(Column("p", "str", nullable=True),),
    )
    told = model_metadata("churn", [7], "sklearn", signature)
    assert [tensor.get("parameters") for tensor in told["inputs"]] == [{"nullable": True}, {"optional": True}, None]
    assert told["outputs"][0]["parameters"] == {"nullable": True}
    config = model_config("churn", [7], "sklearn", 64, signature)
    assert [tensor.get("optional") for tensor in config["input"]] == [None, True, None]
    assert "optional" not in config["output"][0]


def test_the_repository_index_says_what_is_ready() -> None:
    assert repository_index([("churn", 7, True), ("churn", 8, False)]) == [
        {"name": "churn", "version": "7", "state": "READY", "reason": ""},
        {"name": "churn", "version": "8", "state": "UNAVAILABLE", "reason": "no worker is proven"},
    ]


def test_a_problem_says_only_what_there_is_to_say() -> None:
    assert problem_json(error("no-such-model", "no churn")) == (
        b'{"type":"about:blank","title":"Not Found","status":404,"code":"no-such-model","detail":"no churn"}'
    )
    full = json.loads(problem_json(error("invalid-row", "bad", hint="do better", details=("a", "b"))))
    assert (full["hint"], full["details"]) == ("do better", ["a", "b"])


@pytest.mark.parametrize("code", sorted(CODES))
def test_every_code_has_a_problem_body_with_its_status(code: str) -> None:
    body = json.loads(problem_json(error(code, "x")))
    assert body["status"] == CODES[code].http
    assert body["title"]
