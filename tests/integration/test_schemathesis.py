"""A judge that somebody else wrote, unmodified: schemathesis on the API document."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.integration.server import SALVER, Server

CONFORMS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,"
    "response_headers_conformance"
)


def judge(document: str, server: Server, folder: Path, *options: str) -> None:
    """Run schemathesis on a document, with the same cases each time; fails with what it says."""
    url = f"http://127.0.0.1:{server.port}"
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", document, "--url", url, *options]
    always = ["--seed", "1", "--generation-database", "none", "--suppress-health-check", "all", "--no-color"]
    done = subprocess.run([*command, *always], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_schemathesis_finds_no_answer_that_the_api_document_does_not_promise(server: Server, tmp_path: Path) -> None:
    document = server.get("/openapi.json").json
    del document["components"]["parameters"]["timeout"]  # a millisecond is legal, and the 504 for it no fault
    predict = document["paths"]["/models/oracle/predict"]["post"]
    predict["parameters"] = [given for given in predict["parameters"] if not given["$ref"].endswith("timeout")]
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    judge("openapi.json", server, tmp_path, "--checks", CONFORMS, "--max-examples", "60", "--continue-on-failure")


def test_schemathesis_finds_no_good_body_that_is_refused(server: Server, tmp_path: Path) -> None:
    document = server.get("/openapi.json").json
    predict = document["paths"]["/models/oracle/predict"]["post"]
    del predict["parameters"]  # a deadline of a millisecond is good, and missed
    content = predict["requestBody"]["content"]
    predict["requestBody"]["content"] = {"application/json": content["application/json"]}  # text says less of itself
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    options = [
        "--checks",
        "positive_data_acceptance,not_a_server_error",
        "--include-path",
        "/models/oracle/predict",
        "--phases",
        "examples,coverage,fuzzing",
    ]
    judge("openapi.json", server, tmp_path, *options, "--max-examples", "60")


def test_schemathesis_finds_no_operation_that_ignores_its_token(start: Callable[..., Server], tmp_path: Path) -> None:
    keys = tmp_path / "keys.jsonl"
    command = [*SALVER, "key", "add", "judge", "--scope", "predict", "--scope", "metadata", "--scope", "docs"]
    token = subprocess.run([*command, "--keys", str(keys)], capture_output=True, text=True, check=True).stdout.strip()
    server = start("--keys", str(keys))
    said = {"authorization": f"Bearer {token}"}
    document = server.ask("GET", "/openapi.json", headers=said).json
    del document["paths"]["/models/oracle/predict"]["post"]["parameters"]  # a deadline of a millisecond is missed
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    header = f"Authorization: {said['authorization']}"
    judge(
        "openapi.json", server, tmp_path, "--checks", f"ignored_auth,{CONFORMS}", "-H", header, "--max-examples", "20"
    )
