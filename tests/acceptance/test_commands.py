"""The command line as a person uses it: what it prints, where, and with which exit code."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest

from salver.limits import Limits
from tests.acceptance.conftest import Said, Terminal

ROWS = """\
id,bill_length_mm,bill_depth_mm,flipper_length_mm,body_mass_g
a,39.1,18.7,181,3750
b,,,,
c,46.5,17.9,192,3500
"""


def stable(text: str) -> str:
    """Output without what differs from run to run: times, ids, names of people and machines."""
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "<time>", text)
    text = re.sub(r"sha256:[0-9a-f]{12,64}", "<id>", text)
    return re.sub(r"<time>(\s+)\S+", r"<time>\1<who>", text)


@pytest.fixture
def anywhere(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path)


def test_the_help_lists_the_verbs_in_the_order_of_a_models_life(anywhere: Terminal) -> None:
    verbs = re.findall(r"^  ([a-z]+)  ", anywhere.ok("--help").partition("Publish and look:")[2], re.MULTILINE)
    assert verbs == [
        "release", "accelerate", "list", "show", "diff", "verify",
        "serve", "promote", "rollback", "history", "key",
        "predict", "doctor", "env", "demo",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "verb",
    [
        "release",
        "list",
        "show",
        "diff",
        "verify",
        "serve",
        "promote",
        "rollback",
        "history",
        "predict",
        "doctor",
        "demo",
    ],
)
def test_every_verb_has_help_with_an_example_and_no_sentence_is_cut(anywhere: Terminal, verb: str) -> None:
    text = anywhere.ok(verb, "--help")
    assert f"    salver {verb}" in text
    assert "..." not in re.sub(r"^Usage: .*", "", text)
    assert "..." not in re.sub(r"^Usage: .*", "", anywhere.ok("--help"))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["lst"], 2, "Did you mean 'list'?"),
        (["serve", "--prot", "1"], 2, "--port"),
        (["show"], 2, "Missing argument"),
        (["list"], 3, "error[no-registry]: there is no registry at "),
        (["show", "penguins@x"], 2, "error[bad-name]: 'penguins@x' does not name a release"),
        (["serve", "--port", "70000"], 2, "--port: serve.port: expected `int` <= 65535, got 70000"),
        (["serve", "--host", "0.0.0.0"], 4, "hint: give --keys FILE (salver key add NAME makes one)"),
        (["release", "nowhere"], 3, "error[missing-file]: nowhere"),
        (["predict", "penguins", "rows.txt"], 2, "hint: give --format, one of csv, tsv, jsonl, json, parquet"),
    ],
)
def test_a_wrong_command_says_what_to_do_on_stderr_and_has_its_exit_code(
    anywhere: Terminal, arguments: list[str], code: int, message: str
) -> None:
    said = anywhere.salver(*arguments)
    assert message in said.err
    assert (said.code, said.out) == (code, "")
    assert "Traceback" not in said.err


def test_a_misspelt_setting_is_an_error_that_names_the_close_one(tmp_path: Path) -> None:
    (tmp_path / "salver.toml").write_text("[serve]\nprot = 1\n")
    said = Terminal(tmp_path).salver("list")
    assert said.code == 2
    assert "unknown setting 'serve.prot'; did you mean 'serve.port'?" in said.err


def test_a_bug_shows_no_traceback_unless_asked_for(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("raise RuntimeError('boom')\n")
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n')
    (tmp_path / "salver.toml").write_text('[release]\nname = "x"\nentry = "broken:Model"\nexamples = "rows.jsonl"\n')
    quiet = Terminal(tmp_path).salver("release")
    loud = Terminal(tmp_path, SALVER_DEBUG="1").salver("release")
    assert "boom" in quiet.err
    assert "Traceback" not in quiet.err
    assert "Traceback" in loud.err
    assert quiet.code == loud.code != 0


@pytest.mark.parametrize(
    ("redirected", "wanted"),
    [
        ("2>/dev/full", Said(0, "bill_length_mm", "")),
        ("2>&-", Said(0, "bill_length_mm", "")),
        (">&- 2>&- <&-", Said(0, "", "")),
        (">/dev/full", Said(1, "", "error[storage-failed]: the output can't be written: No space left on device")),
    ],
)
@pytest.mark.parametrize("command", ["show penguins", "predict penguins"])
def test_a_command_needs_no_stderr_and_says_that_its_output_has_no_room(
    penguins: Terminal, tmp_path: Path, command: str, redirected: str, wanted: Said
) -> None:
    (tmp_path / "rows.csv").write_text(ROWS)
    rows = tmp_path / "rows.csv" if command.startswith("predict") else ""
    said = penguins.shell(f"{command} {rows} {redirected}")
    assert (said.code, wanted.out in said.out, wanted.err in said.err) == (wanted.code, True, True), said


def test_the_list_of_models_reads_like_this(penguins: Terminal) -> None:
    assert stable(penguins.ok("list")).splitlines() == [
        "MODEL     LIVE        RELEASES  LAST PUBLISHED        BY",
        "penguins  penguins@1         2  <time>  <who>",
    ]


def test_the_list_of_releases_shows_the_newest_first_and_which_is_live(penguins: Terminal) -> None:
    releases = penguins.json("list", "penguins")
    assert [(each["name"], each["state"], each["note"]) for each in releases] == [
        ("penguins@2", "", "the second"),
        ("penguins@1", "live", "the first"),
    ]


def test_show_says_what_a_release_takes_and_gives(penguins: Terminal) -> None:
    text = penguins.ok("show", "penguins@2")
    assert "penguins@2" in text.splitlines()[0]
    assert "  bill_length_mm     float, nullable, " in text
    assert "  prediction  category, Adelie|Chinstrap|Gentoo" in text
    assert "golden rows" in text
    assert "model/weights.npz" in text


def test_show_in_json_has_the_whole_manifest(penguins: Terminal) -> None:
    shown = penguins.json("show", "penguins")
    assert (shown["name"], shown["state"], shown["manifest"]["framework"]) == ("penguins@1", "live", "function")
    assert shown["manifest"]["serving"]["max_batch"] == 64


def test_diff_names_what_answers_differently_and_which_files_changed(penguins: Terminal) -> None:
    compared = penguins.json("diff", "penguins@1", "penguins@2")
    assert not compared["same"]
    assert compared["golden"]["shared"] > 0
    assert compared["golden"]["differ"] == compared["golden"]["shared"]
    assert "model/weights.npz" in [each["name"] for each in compared["files"]]
    assert compared["packages"] == []
    assert "confidence: expected" in penguins.ok("diff", "penguins@1", "penguins@2")
    assert penguins.json("diff", "penguins", "penguins@1")["same"]


def test_releasing_the_same_again_changes_nothing(own_penguins: Terminal) -> None:
    assert "penguins@2 already published, nothing changed" in own_penguins.ok("release")
    assert own_penguins.json("list")[0]["releases"] == 2


LOUD = """
import os
print("imported")
os.system("echo imported by a child")
"""


def test_what_a_models_module_prints_goes_to_stderr_and_leaves_stdout_to_the_answer(own_penguins: Terminal) -> None:
    module = own_penguins.folder / "penguins.py"
    loud = module.read_text() + LOUD
    module.write_text(loud.replace("        with np.load", "        print('loaded')\n        with np.load", 1))
    said = own_penguins.salver("release", "--json")
    assert json.loads(said.out)["release"]["number"] == 3
    assert {"imported", "imported by a child", "loaded"} <= set(said.err.splitlines())
    for command in (("doctor", "penguins@3"), ("diff", "penguins@2", "penguins@3"), ("show", "penguins@3")):
        own_penguins.json(*command)
    (own_penguins.folder / "rows.csv").write_text(ROWS)
    predicted = own_penguins.salver("predict", "penguins@3", "rows.csv")
    assert predicted.out.startswith("id,bill_length_mm"), predicted


def test_a_damaged_registry_fails_verify_and_names_the_object(own_penguins: Terminal) -> None:
    assert "everything is there and intact" in own_penguins.ok("verify")
    blob = max((own_penguins.folder / "registry" / "blobs").rglob("*"), key=lambda path: path.stat().st_size)
    blob.chmod(0o600)
    blob.write_bytes(blob.read_bytes()[:-1] + b"?")
    said = own_penguins.salver("verify", "--json")
    assert said.code == 4
    assert not json.loads(said.out)["clean"]
    assert blob.name in json.loads(said.out)["problems"][0]["key"]
    assert "error[corrupt]" in said.err


def test_doctor_names_the_damaged_file_of_a_release_that_the_cache_has_intact(own_penguins: Terminal) -> None:
    (own_penguins.folder / "rows.csv").write_text(ROWS)
    own_penguins.ok("predict", "penguins@2", "rows.csv")
    shown = own_penguins.json("show", "penguins@2")["manifest"]["files"]
    (digest,) = (file["sha256"] for file in shown if file["path"] == "golden.jsonl")
    (blob,) = (own_penguins.folder / "registry" / "blobs").rglob(f"*{digest[2:]}")
    blob.chmod(0o600)
    content = blob.read_bytes()
    blob.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    said = own_penguins.salver("doctor", "penguins@2", "--json")
    assert said.code == 4
    checks = {check["name"]: check for check in json.loads(said.out)}
    assert not checks["penguins@2"]["ok"]
    assert "golden.jsonl of penguins@2" in checks["penguins@2"]["found"]
    assert checks["golden rows"]["ok"]


def test_release_in_a_folder_of_a_project_finds_the_nearest_salver_toml_above(own_penguins: Terminal) -> None:
    deep = own_penguins.folder / "notebooks" / "old"
    deep.mkdir(parents=True)
    below = Terminal(deep, **{name: own_penguins.environ[name] for name in ("SALVER_REGISTRY", "SALVER_CACHE")})
    assert "penguins@2 already published, nothing changed" in below.ok("release")
    said = below.salver("release", str(deep))
    assert f"{deep} has no salver.toml" in said.err


def test_predict_appends_columns_and_leaves_the_others_as_they_were(own_penguins: Terminal) -> None:
    (own_penguins.folder / "rows.csv").write_text(ROWS)
    own_penguins.ok("predict", "penguins", "rows.csv", "-o", "scored.csv")
    lines = (own_penguins.folder / "scored.csv").read_text().splitlines()
    assert [line.rpartition(",")[0] for line in lines] == [
        "id,bill_length_mm,bill_depth_mm,flipper_length_mm,body_mass_g,prediction",
        "a,39.1,18.7,181,3750,Adelie",
        "b,,,,,Chinstrap",
        "c,46.5,17.9,192,3500,Chinstrap",
    ]
    assert not (own_penguins.folder / "scored.csv.errors.jsonl").exists()


def test_predict_reads_stdin_and_writes_stdout_only(penguins: Terminal) -> None:
    said = penguins.salver("predict", "penguins@1", "-", "--format", "csv", "--output-format", "jsonl", stdin=ROWS)
    rows = [json.loads(line) for line in said.out.splitlines()]
    assert [(row["id"], row["prediction"]) for row in rows] == [("a", "Adelie"), ("b", "Chinstrap"), ("c", "Chinstrap")]
    assert rows[0]["flipper_length_mm"] == 181.0
    assert "penguins@1: 3 rows" in said.err


def test_rows_that_cannot_be_predicted_are_listed_with_their_lines(own_penguins: Terminal) -> None:
    (own_penguins.folder / "rows.csv").write_text(ROWS + "d,wide,17.9,192,3500\n")
    said = own_penguins.salver("predict", "penguins", "rows.csv", "-o", "scored.csv")
    assert said.code == 2
    assert "1 of 4 rows have no prediction" in said.err
    assert (own_penguins.folder / "scored.csv").read_text().splitlines()[-1] == "d,wide,17.9,192,3500,,"
    assert json.loads((own_penguins.folder / "scored.csv.errors.jsonl").read_text()) == {
        "line": 5, "code": "invalid-row", "detail": "bill_length_mm: expected float, got 'wide'",
    }  # fmt: skip


def test_a_file_that_does_not_fit_leaves_no_output(own_penguins: Terminal) -> None:
    (own_penguins.folder / "rows.csv").write_text("id,bill_length_mm\na,1\n")
    before = sorted(own_penguins.folder.iterdir())
    said = own_penguins.salver("predict", "penguins", "rows.csv", "-o", "scored.csv")
    assert said.code == 2
    assert said.err.count("is missing") == 3
    assert sorted(own_penguins.folder.iterdir()) == sorted([*before, own_penguins.folder / "cache"])


def test_there_is_no_colour_in_a_pipe(penguins: Terminal) -> None:
    assert "\x1b" not in penguins.ok("show", "penguins")
    assert "\x1b" not in penguins.salver("show", "nothing").err


def test_doctor_shows_every_limit_with_its_value_and_where_it_was_set(tmp_path: Path) -> None:
    (tmp_path / "salver.toml").write_text("[limits]\nrows = 500\ntimeout = 2.5\n")
    terminal = Terminal(tmp_path, SALVER_LIMITS_BODY="1048576", COLUMNS="400")
    limits = terminal.json("doctor", "--limits")
    assert limits == {**msgspec.to_builtins(Limits(rows=500, timeout=2.5, body=1 << 20)), "json_depth": 100}
    lines = terminal.ok("doctor", "--limits").splitlines()
    shown = {line.split()[0]: line for line in lines}
    assert {f"limits.{name}" for name in limits} - {"limits.json_depth"} | {"json_depth", "LIMIT"} == set(shown)
    for name, value, origin in (
        ("limits.rows", "500", "salver.toml"),
        ("limits.body", "1,048,576", "$SALVER_LIMITS_BODY"),
        ("limits.tensors", "256", "default"),
        ("json_depth", "100", "fixed"),
    ):
        assert shown[name].split()[1] == value
        assert shown[name].endswith(origin), shown[name]


def test_what_nothing_converts_is_refused_before_it_is_proven(own_penguins: Terminal) -> None:
    said = own_penguins.salver("release", "--accelerate", "onnx")
    assert "error[unsupported-model]" in said.err
    assert "nothing converts a release of the framework function" in said.err
    assert json.loads(own_penguins.ok("list", "--json"))[0]["releases"] == 2
