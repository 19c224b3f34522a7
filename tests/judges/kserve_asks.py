"""`python kserve_asks.py HTTP_PORT GRPC_PORT MODEL`: what the clients of KServe get, as JSON.

Run by an interpreter that has KServe. All clients ask a model of one tensor `x` of shape [n, 4] for the rows that come
on standard input as JSON.
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


async def rest(port: str, model: str, rows: Any) -> dict[str, Any]:
    address = f"http://localhost:{port}"
    v1 = InferenceRESTClient(RESTConfig(protocol="v1"))
    v2 = InferenceRESTClient(RESTConfig(protocol="v2"))
    said: dict[str, Any] = {
        "live": await v2.is_server_live(address),
        "ready": await v2.is_server_ready(address),
        "model ready": [await client.is_model_ready(address, model) for client in (v1, v2)],
        "v1": (await v1.infer(address, {"instances": rows.tolist()}, model_name=model))["predictions"],
    }
    for binary in (False, True):
        answer = await v2.infer(address, InferRequest(model, [tensor(rows, binary=binary)]), model_name=model)
        said[f"v2 {binary}"] = answer.outputs[0].as_numpy().tolist()
    return said


async def grpc(port: str, model: str, rows: Any) -> dict[str, Any]:
    client = InferenceGRPCClient(f"localhost:{port}")
    said: dict[str, Any] = {
        "grpc live": await client.is_server_live(),
        "grpc ready": await client.is_server_ready(),
        "grpc model ready": await client.is_model_ready(model),
    }
    for binary in (False, True):
        answer = await client.infer(InferRequest(model, [tensor(rows, binary=binary)]))
        said[f"grpc {binary}"] = answer.outputs[0].as_numpy().tolist()
    return said


async def main() -> None:
    http_port, grpc_port, model = sys.argv[1:]
    rows = np.array(json.load(sys.stdin))
    sys.stdout.write(json.dumps(await rest(http_port, model, rows) | await grpc(grpc_port, model, rows)))


if __name__ == "__main__":
    asyncio.run(main())
