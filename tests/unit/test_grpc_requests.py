"""What the gateway reads of a ModelInferRequest, whoever wrote it."""

from __future__ import annotations

from typing import Any

import pytest
from tritonclient.grpc import service_pb2

from salver.errors import SalverError
from salver.gateway.grpc.requests import LAST, MOST_PARAMETERS, NONE, Wishes, ends_last, read
from salver.protocols.protobuf import block, string


def message(**more: Any) -> Any:
    made = service_pb2.ModelInferRequest(model_name="churn", **more)
    made.inputs.add(name="x", datatype="FP64", shape=[1]).contents.fp64_contents.append(1.5)
    return made


def wishing(**more: Any) -> Any:
    made = message(**more)
    made.parameters["timeout"].int64_param = 250
    made.parameters["triton_enable_empty_final_response"].bool_param = True
    made.parameters["other"].string_param = "7"
    return made


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (message(), ("churn", "", NONE)),
        (message(model_version="7"), ("churn", "7", NONE)),
        (message(id="a"), ("churn", "", Wishes(id="a"))),
        (message(id="a" * 900, model_version="7"), ("churn", "7", Wishes(id="a" * 900))),
        (wishing(), ("churn", "", Wishes(250_000, True))),
        (wishing(id="ä", model_version="7"), ("churn", "7", Wishes(250_000, True, "ä"))),
        (wishing(id="a" * 900), ("churn", "", Wishes(250_000, True, "a" * 900))),
        (service_pb2.ModelInferRequest(model_version="7"), ("", "7", NONE)),
        (service_pb2.ModelInferRequest(), ("", "", NONE)),
        (service_pb2.ModelInferRequest(model_name="churn", model_version="7" * 200), ("churn", "7" * 200, NONE)),
    ],
)
def test_model_version_and_wishes_are_read(made: Any, expected: Any) -> None:
    assert read(made.SerializeToString()) == expected


@pytest.mark.parametrize(
    ("kind", "value", "timeout"),
    [
        ("int64_param", 0, 0),
        ("int64_param", -5, 0),
        ("uint64_param", 9, 9000),
        ("string_param", "9", 0),
        ("bool_param", True, 0),
    ],
)
def test_a_timeout_is_a_positive_number_of_microseconds(kind: str, value: Any, timeout: int) -> None:
    made = message()
    setattr(made.parameters["timeout"], kind, value)
    assert read(made.SerializeToString())[2].timeout == timeout


def test_wishes_are_read_in_any_order_of_the_first_fields() -> None:
    made = wishing(id="a")
    parameters = service_pb2.ModelInferRequest(parameters=made.parameters).SerializeToString()
    head = string(2, "7") + string(1, "churn")
    assert read(head + parameters + string(3, "a")) == ("churn", "7", Wishes(250_000, True, "a"))


@pytest.mark.parametrize(
    "data",
    [
        b"\xff",
        string(1, "churn") + b"\x22\xff\x01",
        string(1, "churn") + b"\x22\x7f",
        string(1, "churn") + b"\x1a\x80",
        string(1, "churn") + block(4, b"\xff"),
        string(1, "churn") + block(4, string(1, "timeout") + block(2, b"\x10")),
        b"\x0a\x02\xff\xff",
    ],
)
def test_bytes_that_are_no_message_are_refused(data: bytes) -> None:
    with pytest.raises(SalverError) as caught:
        read(data)
    assert caught.value.code == "bad-protocol-body"


def test_parameters_are_counted() -> None:
    made = message()
    for number in range(MOST_PARAMETERS):
        made.parameters[str(number)].bool_param = True
    assert read(made.SerializeToString())[2] is NONE
    made.parameters["one more"].bool_param = True
    with pytest.raises(SalverError) as caught:
        read(made.SerializeToString())
    assert caught.value.code == "too-large"


def test_the_last_message_says_so_and_nothing_else() -> None:
    said = service_pb2.ModelStreamInferResponse.FromString(ends_last("churn", 7, "a")).infer_response
    assert (said.model_name, said.model_version, said.id, list(said.outputs)) == ("churn", "7", "a", [])
    assert said.parameters["triton_final_response"].bool_param
    other = service_pb2.ModelInferResponse(model_name="m")
    other.parameters["mine"].int64_param = 1
    merged = service_pb2.ModelInferResponse.FromString(other.SerializeToString() + LAST)
    assert set(merged.parameters) == {"mine", "triton_final_response"}
