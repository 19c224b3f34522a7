"""Each rule of the budget, on a small sample that breaks it and one that just keeps it."""

from __future__ import annotations

import ast

import pytest

from tools import budget

PYPROJECT = """
[project.optional-dependencies]
sklearn = ["scikit-learn>=1.5", "pandas>=2.2"]
onnx = ["onnxruntime>=1.20"]
"""


def module_problems(text: str, path: str = "src/salver/example.py") -> list[str]:
    return list(budget.check_module(path, text, ast.parse(text)))


def import_problems(module: str, text: str) -> list[str]:
    return list(budget.check_imports(module, ast.parse(text), budget.extra_packages(PYPROJECT)))


def body(lines: int) -> str:
    return "def long():\n" + "    x = 1\n" * (lines - 1)


def test_a_module_may_have_400_lines_and_no_more() -> None:
    assert module_problems("x = 1\n" * 400) == []
    assert module_problems("x = 1\n" * 401) == ["src/salver/example.py: 401 lines, the limit is 400"]


def test_a_function_may_have_80_lines_and_no_more() -> None:
    assert module_problems(body(80)) == []
    assert module_problems(body(81)) == ["src/salver/example.py:1: long has 81 lines, the limit is 80"]


def test_the_length_of_a_method_counts_too() -> None:
    method = "class A:\n    def long(self):\n" + "        x = 1\n" * 80
    assert module_problems(method) == ["src/salver/example.py:2: long has 81 lines, the limit is 80"]


def test_19_of_20_functions_must_be_under_40_lines() -> None:
    assert list(budget.check_share([39] * 19 + [40])) == []
    assert list(budget.check_share([39] * 18 + [40])) == [
        "src: 18 of 19 functions are under 40 lines, 95% must be",
    ]


@pytest.mark.parametrize(
    "signature",
    ["f(a, b, c, d, e, g, h)", "f(a, b, c, *, d, e, g, h)", "f(a, /, b, c, d, e, g, h=1)"],
)
def test_a_seventh_parameter_is_one_too_many(signature: str) -> None:
    assert module_problems(f"def {signature}: ...") == [
        "src/salver/example.py:1: f has 7 parameters, the limit is 6: pass a struct"
    ]


def test_self_and_cls_are_no_parameters() -> None:
    sample = "class A:\n def f(self, a, b, c, d, e, g): ...\n @classmethod\n def h(cls, a, b, c, d, e, g): ..."
    assert module_problems(sample) == []


def test_the_options_of_a_command_are_not_parameters_of_a_call() -> None:
    command = "@app.command()\ndef serve(a, b, c, d, e, f, g, h): ..."
    assert module_problems(command) == []
    assert len(module_problems(command.replace("h)", "h, i, j, k, l, m, n, o)"))) == 1


def test_a_port_has_at_most_five_methods() -> None:
    methods = "\n".join(f" def m{i}(self): ..." for i in range(6))
    for name in ("Protocol", "typing.Protocol", "Protocol[T]"):
        assert module_problems(f"class P({name}):\n{methods}") == [
            "src/salver/example.py:1: port P has 6 methods, the limit is 5"
        ]


def test_a_transport_protocol_is_no_port() -> None:
    methods = "\n".join(f" def m{i}(self): ..." for i in range(6))
    assert module_problems(f"class P(asyncio.Protocol):\n{methods}") == []


@pytest.mark.parametrize("clause", ["except Exception:", "except:", "except (ValueError, BaseException):"])
def test_a_third_broad_except_in_a_module_is_one_too_many(clause: str) -> None:
    block = f"try:\n    f()\n{clause}\n    g()\n"
    assert module_problems(block * 2) == []
    assert module_problems(block * 3) == [
        "src/salver/example.py: catches everything 3 times (lines [3, 7, 11]), the limit is 2"
    ]


@pytest.mark.parametrize("name", ["utils", "base", "worker_helpers", "core/loop"])
def test_a_module_name_that_says_nothing_is_refused(name: str) -> None:
    assert len(module_problems("x = 1\n", f"src/salver/{name}.py")) == 1
    assert module_problems("x = 1\n", f"tests/unit/{name}.py") == []


def test_an_import_inside_a_function_is_refused_outside_the_wiring() -> None:
    sample = "def f():\n    import json\n"
    assert import_problems("salver/gateway/http", sample) == [
        "src/salver/gateway/http.py:2: json is imported inside a function"
    ]
    for place in ("salver/wiring", "salver/cli/serve", "salver/plugins", "salver/__init__"):
        assert import_problems(place, sample) == []


def test_an_adapter_may_import_its_extra_late_and_nothing_else() -> None:
    late = "def f():\n    import sklearn.base\n    from salver import errors\n"
    assert import_problems("salver/frameworks/sklearn", late) == [
        "src/salver/frameworks/sklearn.py:3: salver.errors is imported inside a function"
    ]


def test_the_light_part_imports_nothing_but_numpy_and_msgspec() -> None:
    sample = (
        "import asyncio\nimport numpy as np\nfrom msgspec import Struct\nfrom salver import errors\nimport uvloop\n"
    )
    assert import_problems("salver/worker/loop", sample) == [
        "src/salver/worker/loop.py:5: imports uvloop; here only the standard library and ['msgspec', 'numpy']"
    ]
    assert import_problems("salver/gateway/http", sample) == []


def test_only_adapters_of_the_light_part_know_an_extra() -> None:
    assert import_problems("salver/frameworks/sklearn", "import sklearn\nimport pandas\nimport onnxruntime\n") == []
    assert len(import_problems("salver/frameworks/__init__", "import sklearn\n")) == 1
    assert len(import_problems("salver/golden", "import pandas\n")) == 1


def test_the_keeper_imports_only_the_standard_library() -> None:
    assert import_problems("salver/supervisor/keeper", "import os\nimport signal\n") == []
    assert len(import_problems("salver/supervisor/keeper", "import msgspec\n")) == 1


LAYERS = budget.layer_numbers("""
[[tool.importlinter.contracts]]
type = "layers"
layers = ["cli", "gateway | (batch)", "errors"]
""")


def test_an_import_for_types_points_down_too() -> None:
    sample = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from salver.cli.app import app\n"
    assert list(budget.check_layers("salver/gateway/http", ast.parse(sample), LAYERS)) == [
        "src/salver/gateway/http.py:3: gateway may not import cli"
    ]


def test_modules_of_one_layer_do_not_know_each_other() -> None:
    sample = ast.parse("from salver import batch\nfrom salver.gateway import front\nfrom salver.errors import error\n")
    assert list(budget.check_layers("salver/gateway/http", sample, LAYERS)) == [
        "src/salver/gateway/http.py:1: gateway may not import batch"
    ]


def graph(**modules: str) -> dict[str, set[str]]:
    return budget.import_graph({name.replace("__", "/"): ast.parse(text) for name, text in modules.items()})


def test_a_cycle_of_imports_is_found_even_where_only_types_or_functions_import() -> None:
    modules = graph(
        salver__a="from salver.b import B",
        salver__b="from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from salver import c",
        salver__c="def f():\n    import salver.a",
    )
    assert list(budget.check_cycles(modules)) == ["import cycle: salver.a -> salver.b -> salver.c -> salver.a"]


def test_a_diamond_of_imports_is_no_cycle() -> None:
    modules = graph(
        salver__a="from salver import b, c", salver__b="import salver.d", salver__c="import salver.d", salver__d=""
    )
    assert modules["salver.a"] == {"salver.b", "salver.c"}
    assert list(budget.check_cycles(modules)) == []


def test_a_path_of_one_machine_is_named_with_its_line() -> None:
    place = "/work" + "/main"
    assert list(budget.check_text("README.md", f"fine\nsee {place}\n")) == [
        f"README.md:2: names a path of one machine: {place[:6]!r}"
    ]


def test_the_host_of_a_registry_is_refused_in_every_text() -> None:
    host = "https://files." + "pythonhosted" + ".org/x"
    assert len(list(budget.check_text("docs/index.md", host))) == 1


def test_the_import_name_of_an_extra_is_known() -> None:
    assert budget.extra_packages(PYPROJECT) == {"sklearn", "pandas", "onnxruntime", "joblib", "scipy"}
