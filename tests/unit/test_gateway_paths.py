"""From request line to target, and the scope that each needs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from salver.errors import SalverError
from salver.frames import Form
from salver.gateway.front import Front
from salver.gateway.grpc.port import every_method
from salver.gateway.grpc.service import Method, Service
from salver.gateway.paths import ADMIN, PUBLIC, Path, Paths, Target, public_paths, resolve
from tests.property.http2_world import World


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("POST /models/churn/predict", Target("predict", Form("native"), "churn")),
        ("POST /models/churn/predict?strict=true", Target("predict", Form("native", {"strict": "true"}), "churn")),
        ("POST /models/churn/releases/7/predict", Target("predict", Form("native"), "churn", 7)),
        ("POST /models/ch%75rn/predict", Target("predict", Form("native"), "churn")),
        ("POST /v2/models/churn/infer", Target("predict", Form("v2"), "churn")),
        ("POST /v2/models/churn/versions/7/infer", Target("predict", Form("v2"), "churn", 7)),
        ("POST /v1/models/churn:predict", Target("predict", Form("v1"), "churn")),
        ("GET /v2", Target("v2-server", Form("v2"))),
        ("GET /v2/", Target("v2-server", Form("v2"))),
        ("GET /v2/models/churn/ready", Target("model-ready", Form("v2"), "churn")),
        ("HEAD /healthz/live", Target("live", head=True)),
        ("GET /models", Target("models")),
    ],
)
def test_every_documented_line_finds_its_target(line: str, wanted: Target) -> None:
    method, url = line.split()
    found = resolve(method, url, PUBLIC)
    assert isinstance(found, Target)
    assert found._replace(scope="") == wanted  # what each caller may is a matrix of its own


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("GET /models/churn/predict", "method-not-allowed"),
        ("DELETE /models/churn", "method-not-allowed"),
        ("POST /models/a%2Fb/predict", "no-such-path"),
        ("POST /models//predict", "no-such-path"),
        ("POST /models/churn/releases/99999999999999999999/predict", "no-such-path"),
        ("POST /models/churn/releases/-1/predict", "no-such-path"),
        ("GET /../etc/passwd", "no-such-path"),
        ("GET /metrics", "no-such-path"),
        ("GET /docs/../secrets", "no-such-path"),
    ],
)
def test_every_other_line_is_refused_with_a_hint(line: str, code: str) -> None:
    method, url = line.split()
    found = resolve(method, url, PUBLIC)
    assert isinstance(found, SalverError)
    assert found.code == code
    assert found.hint


def test_metrics_are_on_the_admin_port_only() -> None:
    assert resolve("GET", "/metrics", ADMIN) == Target("metrics", scope="metrics")


def test_no_path_of_the_data_plane_changes_anything() -> None:
    assert {path.method for path in PUBLIC} == {"GET", "POST", "PUT"}
    assert {path.kind for path in PUBLIC if path.method == "PUT"} == {"predict"}
    # the index only lists, and a load or unload is answered with 501
    assert {path.kind for path in PUBLIC if path.method == "POST"} == {"predict", "v2-index", "v2-load"}


def test_a_dialect_is_told_to_the_protocol_that_it_changes_and_no_client_can_say_it() -> None:
    for url, form in (
        ("/v1/models/churn:predict", Form("v1", {"dialect": "tfserving"})),
        ("/v1/models/churn/versions/7:predict?strict=true", Form("v1", {"strict": "true", "dialect": "tfserving"})),
        ("/v2/models/churn/infer", Form("v2")),
    ):
        found = resolve("POST", url, public_paths("tfserving"))
        assert isinstance(found, Target)
        assert found.form == form
    found = resolve("POST", "/invocations", public_paths("mlflow"))
    assert isinstance(found, Target)
    assert found.form == Form("invocations", {"dialect": "mlflow"})
    for dialect in ("", "sagemaker"):
        assert public_paths(dialect) == PUBLIC
    asked = resolve("POST", "/v1/models/churn:predict?dialect=tfserving", PUBLIC)
    assert isinstance(asked, Target)
    assert asked.form == Form("v1")


def serve(paths: Paths = PUBLIC, methods: Mapping[bytes, Method] | None = None) -> None:
    """Put both ports together, as a gateway does."""

    async def put_together() -> None:
        world = World()
        front = Front(world.front.serving, world.front.limits, world.block, paths, world.front.pages, world.front.sweep)
        Service(front, every_method() if methods is None else methods)

    asyncio.run(put_together())


def test_a_path_without_a_scope_is_not_served() -> None:
    serve(PUBLIC)
    serve(ADMIN)
    forgotten = Path(PUBLIC[0].pattern, "GET", "models", "", "native")
    with pytest.raises(ValueError, match="has no scope"):
        serve((*PUBLIC, forgotten))


def test_every_kind_of_page_needs_the_scope_that_is_written_here() -> None:
    of_metadata = "models model model-ready v2-server v2-model v2-models v2-config v2-index v2-load v1-models v1-model"
    of_health = "live ready ping mlflow-health mlflow-version execution-parameters"
    written = {
        "predict": {"predict"},
        "metadata": {*of_metadata.split(), "v1-metadata"},
        "health": set(of_health.split()),
        "docs": {"openapi", "docs", "asset", "home"},
    }
    assert {path.kind: path.scope for path in PUBLIC} == {kind: scope for scope in written for kind in written[scope]}
    admin = {"metrics": "metrics", "status": "status", "live": "health", "ready": "health"}
    assert {path.kind: path.scope for path in ADMIN} == admin


def test_a_grpc_method_without_a_scope_is_not_served() -> None:
    table = every_method()
    serve(methods=table)
    path = b"/inference.GRPCInferenceService/ModelInfer"
    with pytest.raises(ValueError, match="ModelInfer has no scope"):
        serve(methods={**table, path: table[path]._replace(scope="")})
