"""`python kserve_asks.py HTTP_PORT GRPC_PORT`: what the clients of KServe get, as JSON.

Run by an interpreter that has KServe. Standard input is JSON: `iris` are rows for a model of that name with one tensor
`x` of shape [n, 4], `people` are rows for a model `people` with the columns `name` (text) and `age` (int or null).
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig


def tensor(rows: Any, *, binary: bool) -> InferInput:
    data = None if binary else rows.ravel().tolist()
    given = InferInput(name="x", shape=list(rows.shape), datatype="FP64", data=data)
    if binary:
        given.set_data_from_numpy(rows, binary_data=True)
    return given


def columns(people: Any, *, binary: bool) -> list[InferInput]:
    """Each column as a tensor; an age that is not known is stated beside the data where that is bytes."""
    names, ages = ([row[name] for row in people] for name in ("name", "age"))
    unknown = ",".join(str(row) for row, age in enumerate(ages) if age is None)
    if not binary:
        return [
            InferInput(name="name", shape=[len(people)], datatype="BYTES", data=names),
            InferInput(name="age", shape=[len(people)], datatype="INT64", data=ages),
        ]
    text = InferInput(name="name", shape=[len(people)], datatype="BYTES")
    text.set_data_from_numpy(np.array([name.encode() for name in names], np.object_), binary_data=True)
    age = InferInput(name="age", shape=[len(people)], datatype="INT64", parameters={"nulls": unknown})
    age.set_data_from_numpy(np.array([each or 0 for each in ages], np.int64), binary_data=True)
    return [text, age]


def told(answer: Any) -> dict[str, Any]:
    """Each output's values, text as text."""
    return {
        output.name: [value.decode() if isinstance(value, bytes) else value for value in output.as_numpy().tolist()]
        for output in answer.outputs
    }


async def rest(port: str, rows: Any, people: Any) -> dict[str, Any]:
    address = f"http://localhost:{port}"
    v1 = InferenceRESTClient(RESTConfig(protocol="v1"))
    v2 = InferenceRESTClient(RESTConfig(protocol="v2"))
    said: dict[str, Any] = {
        "live": await v2.is_server_live(address),
        "ready": await v2.is_server_ready(address),
        "model ready": [await client.is_model_ready(address, "iris") for client in (v1, v2)],
    }
    for key in ("instances", "inputs"):
        said[f"v1 {key}"] = (await v1.infer(address, {key: rows.tolist()}, model_name="iris"))["predictions"]
        said[f"people v1 {key}"] = (await v1.infer(address, {key: people}, model_name="people"))["predictions"]
    for binary in (False, True):
        answer = await v2.infer(address, InferRequest("iris", [tensor(rows, binary=binary)]), model_name="iris")
        said[f"v2 {binary}"] = answer.outputs[0].as_numpy().tolist()
        asked = InferRequest("people", columns(people, binary=binary))
        said[f"people v2 {binary}"] = told(await v2.infer(address, asked, model_name="people"))
    return said


async def grpc(port: str, rows: Any, people: Any) -> dict[str, Any]:
    client = InferenceGRPCClient(f"localhost:{port}")
    said: dict[str, Any] = {
        "grpc live": await client.is_server_live(),
        "grpc ready": await client.is_server_ready(),
        "grpc model ready": await client.is_model_ready("iris"),
    }
    for binary in (False, True):
        answer = await client.infer(InferRequest("iris", [tensor(rows, binary=binary)]))
        said[f"grpc {binary}"] = answer.outputs[0].as_numpy().tolist()
    said["people grpc"] = told(await client.infer(InferRequest("people", columns(people, binary=True))))
    return said


async def main() -> None:
    http_port, grpc_port = sys.argv[1:]
    given = json.load(sys.stdin)
    rows, people = np.array(given["iris"]), given["people"]
    sys.stdout.write(json.dumps(await rest(http_port, rows, people) | await grpc(grpc_port, rows, people)))


if __name__ == "__main__":
    asyncio.run(main())
