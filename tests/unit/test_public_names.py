"""The public names of the package are few, pinned, and cost nothing until they are used."""

from __future__ import annotations

import subprocess
import sys

import salver

NAMES = [
    "AsyncClient",
    "Broken",
    "Busy",
    "Client",
    "Column",
    "Model",
    "Range",
    "SalverError",
    "Signature",
    "Table",
    "Tensor",
    "UserError",
    "declare",
    "explain_break",
    "release",
]


def in_a_fresh_interpreter(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_public_names_are_these_and_no_others() -> None:
    assert sorted(salver.__all__) == NAMES
    assert sorted(dir(salver)) == NAMES


def test_every_public_name_can_be_imported() -> None:
    assert [name for name in NAMES if getattr(salver, name) is None] == []


def test_importing_the_package_imports_nothing_else() -> None:
    code = "import sys; before = set(sys.modules); import salver; print(sorted(set(sys.modules) - before - {'typing'}))"
    loaded = in_a_fresh_interpreter(code)
    assert not [name for name in ("numpy", "msgspec", "salver.errors", "salver.publish") if f"'{name}'" in loaded]


def test_release_stays_the_function_after_the_module_of_that_name_is_imported() -> None:
    code = "import salver.release, salver.registry, salver; print(callable(salver.release), salver.release.__module__)"
    assert in_a_fresh_interpreter(code).startswith("True salver.publish")


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    assert in_a_fresh_interpreter("import salver; print(hasattr(salver, 'nothing'))") == "False"
