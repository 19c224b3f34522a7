"""Settings come from salver.toml, then the environment, then flags, and a wrong one is never ignored."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from salver.errors import UserError
from salver.settings import _FIELDS, Loaded, Source, describe, load_settings


def load(
    folder: Path, *, flags: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None, text: str = ""
) -> Loaded:
    if text:
        (folder / "salver.toml").write_text(text, "utf-8")
    return load_settings(Source(flags or {}, environ or {}, folder))


def problems(folder: Path, **given: Any) -> tuple[str, ...]:
    with pytest.raises(UserError) as caught:
        load(folder, **given)
    assert caught.value.code == "bad-settings"
    return caught.value.details


def test_without_any_source_the_defaults_hold(tmp_path: Path) -> None:
    settings, origins = load(tmp_path)
    assert (settings.serve.host, settings.serve.port, settings.serve.gateways, settings.serve.workers) == (
        "127.0.0.1",
        8080,
        1,
        2,
    )
    assert settings.registry == str(tmp_path / ".salver")
    assert origins == {}


def test_a_flag_beats_the_environment_which_beats_the_file(tmp_path: Path) -> None:
    text = "[serve]\nport = 1\nworkers = 1\ngateways = 1\n"
    environ = {"SALVER_SERVE_PORT": "2", "SALVER_SERVE_WORKERS": "2"}
    settings, origins = load(tmp_path, text=text, environ=environ, flags={"serve.port": 3, "serve.host": None})
    assert (settings.serve.port, settings.serve.workers, settings.serve.gateways) == (3, 2, 1)
    assert origins["serve.port"] == "--port"
    assert origins["serve.workers"] == "$SALVER_SERVE_WORKERS"
    assert origins["serve.gateways"] == str(tmp_path / "salver.toml")
    assert "serve.host" not in origins


def test_an_unknown_key_names_the_close_one(tmp_path: Path) -> None:
    found = problems(tmp_path, text="[serve]\nprot = 1\n\n[nothing_like_it]\nx = 1\n")
    assert found == (
        f"{tmp_path / 'salver.toml'}: unknown setting 'serve.prot'; did you mean 'serve.port'?",
        f"{tmp_path / 'salver.toml'}: unknown setting 'nothing_like_it.x'",
    )


def test_an_unknown_table_is_refused_though_it_is_empty(tmp_path: Path) -> None:
    (tmp_path / "salver.toml").write_text("[serv]\n[limits]\n")
    assert problems(tmp_path) == (f"{tmp_path / 'salver.toml'}: unknown table [serv]; did you mean 'serve'?",)


def test_an_unknown_variable_names_the_close_one(tmp_path: Path) -> None:
    found = problems(tmp_path, environ={"SALVER_REGISTRI": "x", "HOME": "/"})
    assert found == ("unknown environment variable SALVER_REGISTRI; did you mean 'SALVER_REGISTRY'?",)


def test_all_wrong_values_are_reported_at_once(tmp_path: Path) -> None:
    found = problems(tmp_path, text='[serve]\nport = "80"\n', environ={"SALVER_SERVE_WORKERS": "none"})
    assert len(found) == 2
    assert "serve.port" in found[0]
    assert "got '80'" in found[0]
    assert "$SALVER_SERVE_WORKERS" in found[1]


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_outside_its_range_is_refused(tmp_path: Path, port: int) -> None:
    assert "serve.port" in problems(tmp_path, flags={"serve.port": port})[0]


def test_a_file_that_is_no_toml_is_named(tmp_path: Path) -> None:
    assert str(tmp_path / "salver.toml") in problems(tmp_path, text="serve = [")[0]


def test_the_tables_of_the_project_are_left_to_publish(tmp_path: Path) -> None:
    settings, _ = load(tmp_path, text='[release]\nname = "churn"\n')
    assert settings.serve.port == 8080


def test_the_nearest_file_above_counts_and_its_paths_are_relative_to_it(tmp_path: Path) -> None:
    (tmp_path / "salver.toml").write_text('registry = "store"\n', "utf-8")
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    assert load(below).settings.registry == str(tmp_path / "store")


def test_a_relative_path_in_a_variable_is_relative_to_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "salver.toml").write_text('registry = "store"\n', "utf-8")
    below = tmp_path / "a"
    below.mkdir()
    assert load(below, environ={"SALVER_REGISTRY": "mine"}).settings.registry == str(below / "mine")


def test_a_file_without_a_registry_puts_it_beside_itself(tmp_path: Path) -> None:
    (tmp_path / "salver.toml").write_text("[serve]\nport = 1\n", "utf-8")
    below = tmp_path / "a"
    below.mkdir()
    assert load(below).settings.registry == str(tmp_path / ".salver")


def test_a_list_in_a_variable_is_separated_by_commas(tmp_path: Path) -> None:
    environ = {"SALVER_SERVE_ENVIRONMENT": "HF_HOME,CUDA_VISIBLE_DEVICES"}
    assert load(tmp_path, environ=environ).settings.serve.environment == ("HF_HOME", "CUDA_VISIBLE_DEVICES")


@pytest.mark.parametrize("text", ['["a=predict","b"]', ' ["a=predict", "b"] ', "a=predict, b,"])
def test_a_list_in_a_variable_may_be_written_as_in_a_file(tmp_path: Path, text: str) -> None:
    environ = {"SALVER_SERVE_TLS_CLIENT_NAMES": text}
    assert load(tmp_path, environ=environ).settings.serve.tls_client_names == ("a=predict", "b")


def test_every_setting_has_a_sentence() -> None:
    assert [name for name in _FIELDS if not describe(name).endswith(".")] == []


# ── SageMaker ────────────────────────────────────────────────────────────────────────────────────────────────────


def in_sagemaker(folder: Path, **environ: str) -> Loaded:
    return load(folder, environ={"SALVER_SERVE_DIALECT": "sagemaker", **environ})


def test_sagemakers_ports_are_taken_where_no_others_are_set(tmp_path: Path) -> None:
    given = {"SAGEMAKER_BIND_TO_PORT": "16000", "SAGEMAKER_SAFE_PORT_RANGE": "16000-16002"}
    serve = in_sagemaker(tmp_path, **given).settings.serve
    assert (serve.port, serve.admin_port, serve.grpc_port) == (16000, 16001, 16002)
    serve = in_sagemaker(tmp_path, **given, SALVER_SERVE_ADMIN_PORT="16002").settings.serve
    assert (serve.port, serve.admin_port, serve.grpc_port) == (16000, 16002, 16001)
    serve = in_sagemaker(tmp_path, **given, SALVER_SERVE_PORT="9000").settings.serve
    assert (serve.port, serve.admin_port, serve.grpc_port) == (9000, 16000, 16001)
    assert load(tmp_path, environ=given).settings.serve.port == 8080


def test_a_range_that_is_used_up_leaves_no_grpc_and_any_admin_port(tmp_path: Path) -> None:
    serve = in_sagemaker(tmp_path, SAGEMAKER_SAFE_PORT_RANGE="8080-8080").settings.serve
    assert (serve.port, serve.admin_port, serve.grpc_port) == (8080, 0, -1)


@pytest.mark.parametrize("ports", ["16000", "a-b", "2-1", "0-5", "1-99999", "-5"])
def test_a_range_that_is_none_is_named(tmp_path: Path, ports: str) -> None:
    environ = {"SALVER_SERVE_DIALECT": "sagemaker", "SAGEMAKER_SAFE_PORT_RANGE": ports}
    (problem,) = problems(tmp_path, environ=environ)
    assert problem.startswith("$SAGEMAKER_SAFE_PORT_RANGE: expected a range")


@pytest.mark.parametrize(
    ("given", "delay", "timeout"),
    [({}, 5, 20), ({"DELAY": "10"}, 10, 15), ({"TIMEOUT": "22"}, 3, 22), ({"DELAY": "20", "TIMEOUT": "20"}, 20, 20)],
)
def test_a_server_ends_before_sagemaker_kills_it_unless_it_is_told_otherwise(
    tmp_path: Path, given: dict[str, str], delay: float, timeout: float
) -> None:
    serve = in_sagemaker(tmp_path, **{f"SALVER_SERVE_DRAIN_{name}": value for name, value in given.items()})
    assert (serve.settings.serve.drain_delay, serve.settings.serve.drain_timeout) == (delay, timeout)
