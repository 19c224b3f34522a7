"""Plugins are found by name, and what is missing is said with what to type."""

from __future__ import annotations

import subprocess
import sys

import pytest

from salver import plugins
from salver.errors import SalverError


def test_our_own_come_by_the_same_door_and_load() -> None:
    assert {"function", "sklearn"} <= set(plugins.names(plugins.FRAMEWORKS))
    for name in ("function", "sklearn"):
        assert plugins.framework(name).name == name
    for name in plugins.names(plugins.PROTOCOLS):
        assert plugins.protocol(name).name == name


def test_a_plugin_is_loaded_once() -> None:
    assert plugins.framework("function") is plugins.framework("function")


def test_an_unknown_framework_is_named_with_those_there_are() -> None:
    with pytest.raises(SalverError) as caught:
        plugins.framework("torch-nowhere")
    assert caught.value.code == "unsupported-model"
    assert "'torch-nowhere'" in caught.value.message
    assert "function" in caught.value.hint


def test_a_missing_extra_says_what_to_type() -> None:
    problem = plugins.missing_extra("skops", needed_for="a scikit-learn model")
    assert problem.code == "missing-extra"
    assert problem.hint == "pip install 'salver[sklearn]'"


def test_a_framework_is_known_without_importing_what_it_adapts() -> None:
    source = (
        "import sys; from salver import plugins; plugins.framework('sklearn').handles(3);"
        "sys.exit(any(name in sys.modules for name in ('sklearn', 'skops', 'pandas', 'joblib')))"
    )
    assert subprocess.run([sys.executable, "-c", source], check=False).returncode == 0
