"""From request line to target."""

from __future__ import annotations

import pytest

from salver.errors import SalverError
from salver.frames import Form
from salver.gateway.paths import ADMIN, PUBLIC, Target, resolve


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
    assert {path.method for path in PUBLIC} == {"GET", "POST"}
    # the index only lists, and a load or unload is answered with 501
    assert {path.kind for path in PUBLIC if path.method == "POST"} == {"predict", "v2-index", "v2-load"}
