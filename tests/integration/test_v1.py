"""KServe's V1 and TF Serving's REST share their paths: what each means, by dialect."""

from __future__ import annotations

from collections.abc import Callable

from tests.integration.oracle import answer
from tests.integration.server import Server

V1 = "/v1/models/oracle:predict"
ROWS = [{"key": 7, "act": ""}, {"key": 8, "act": ""}]
COLUMNS = {"key": [7, 8], "act": ["", ""]}
ANSWERS = [answer(1, 7), answer(1, 8)]


def test_inputs_are_rows_as_a_list_and_columns_as_an_object(server: Server) -> None:
    assert server.post(V1, {"inputs": ROWS}).json == {"predictions": ANSWERS}
    assert server.post(V1, {"inputs": [[7, ""], [8, ""]]}).json == {"predictions": ANSWERS}
    assert server.post(V1, {"inputs": COLUMNS}).json == {"outputs": ANSWERS}


def test_in_tf_servings_dialect_inputs_are_columns_only(start: Callable[..., Server]) -> None:
    server = start("--workers", "1", "--dialect", "tfserving")
    for path in (V1, "/v1/models/oracle/versions/1:predict", "/v1/models/oracle/labels/stable:predict"):
        assert server.post(path, {"inputs": COLUMNS}).json == {"outputs": ANSWERS}
        assert server.post(path, {"instances": ROWS}).json == {"predictions": ANSWERS}
        refused = server.post(path, {"inputs": ROWS})
        assert refused.status == 400
        assert "one array per field" in refused.json["error"]


def test_a_structured_cloud_event_is_refused_by_name_and_the_data_of_a_binary_one_is_read(server: Server) -> None:
    event = {"specversion": "1.0", "type": "t", "source": "s", "id": "1", "data": {"instances": ROWS}}
    for content_type in ("application/cloudevents+json", "application/json"):
        refused = server.post(V1, event, {"content-type": content_type})
        assert refused.status == 415
        assert "cloudevents" in refused.json["error"].lower()
    named = {"ce-specversion": "1.0", "ce-type": "t", "ce-source": "s", "ce-id": "1"}
    assert server.post(V1, {"instances": ROWS}, named).json == {"predictions": ANSWERS}
