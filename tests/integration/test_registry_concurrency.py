"""Many real processes on one registry: no lost update, no number with two contents, nothing half-visible."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from salver.registry import Registry
from salver.storage.folder import FolderStorage
from tests.integration.sample_releases import PROVENANCE, build

PROCESSES = 8

PUBLISH = """
import sys
from pathlib import Path
from salver.registry import Registry
from salver.storage.folder import FolderStorage
from tests.integration.sample_releases import PROVENANCE, build
place, work, contents = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
manifests = [(content, build(work / content, content)) for content in contents]
registry = Registry(FolderStorage(place))
print("ready", flush=True)
sys.stdin.readline()
for content, manifest in manifests:
    published = registry.publish(work / content, manifest, PROVENANCE)
    print(content, published.release.number, published.created, flush=True)
"""

PROMOTE = """
import sys
from pathlib import Path
from salver.errors import Busy
from salver.registry import Registry
from salver.route import Change, next_route
from salver.storage.folder import FolderStorage
place, me, moves = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
registry = Registry(FolderStorage(place))
print("ready", flush=True)
sys.stdin.readline()
for move in range(moves):
    while True:
        change = Change(1 + move % 2, "promote", me, "2025-01-02T00:00:00Z", why=str(move))
        route = next_route("churn", registry.current("churn"), change)
        try:
            registry.append_route(route)
        except Busy:
            continue
        print(route.seq, flush=True)
        break
"""

OPEN = """
import sys
from pathlib import Path
from salver.registry import Registry, ReleaseCache
from salver.storage.folder import FolderStorage
registry = Registry(FolderStorage(Path(sys.argv[1])))
release = registry.find("churn@1")
print("ready", flush=True)
sys.stdin.readline()
for _ in range(20):
    folder = ReleaseCache(Path(sys.argv[2])).open(registry, release)
    assert (folder / "code" / "churn.py").read_bytes()
print(folder, flush=True)
"""


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )


def run_together(processes: list[subprocess.Popen[str]]) -> list[list[str]]:
    """Let all processes go at once; the lines that each wrote."""
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=120)[0].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes)
    return outputs


def test_publishers_of_one_content_get_one_number_and_of_several_get_one_each(tmp_path: Path) -> None:
    place = tmp_path / "registry"
    lines = run_together(
        [
            start(PUBLISH, place, tmp_path / str(number), "same", f"own-{number}", "also-same", f"half-{number // 2}")
            for number in range(PROCESSES)
        ]
    )
    numbers: dict[str, set[int]] = {}
    created: dict[str, int] = {}
    for content, number, new in (line.split() for output in lines for line in output):
        numbers.setdefault(content, set()).add(int(number))
        created[content] = created.get(content, 0) + (new == "True")
    contents = 2 + PROCESSES + PROCESSES // 2
    assert len(numbers) == contents
    assert all(len(found) == 1 for found in numbers.values()), numbers
    assert set(created.values()) == {1}
    registry = Registry(FolderStorage(place))
    assert [release.number for release in registry.releases("churn")] == list(range(1, contents + 1))
    assert len({release.id for release in registry.releases("churn")}) == contents
    report = registry.verify()
    assert (report.problems, report.orphans) == ((), ())


def test_a_second_spelling_of_a_name_never_wins_beside_the_first(tmp_path: Path) -> None:
    script = PUBLISH.replace("build(work / content, content)", "build(work / content, 'x', model=content)").replace(
        "    published = registry.publish(work / content, manifest, PROVENANCE)\n",
        "    try:\n        published = registry.publish(work / content, manifest, PROVENANCE)\n"
        "    except Exception as problem:\n        print(content, problem.code, flush=True)\n        continue\n",
    )
    spellings = ["churn", "Churn", "CHURN", "chuRN"]
    lines = run_together([start(script, tmp_path / "registry", tmp_path / name, name) for name in spellings])
    answers = sorted(line.split()[1] for (line,) in lines)
    assert answers == ["1", "name-collision", "name-collision", "name-collision"]
    assert len(Registry(FolderStorage(tmp_path / "registry")).models()) == 1


def two_releases(tmp_path: Path) -> Registry:
    registry = Registry(FolderStorage(tmp_path / "registry"))
    for content in ("one", "two"):
        registry.publish(tmp_path / content, build(tmp_path / content, content), PROVENANCE)
    return registry


def test_no_promotion_is_lost_however_many_promote(tmp_path: Path) -> None:
    registry = two_releases(tmp_path)
    moves = 10
    lines = run_together([start(PROMOTE, tmp_path / "registry", f"p{n}", moves) for n in range(PROCESSES)])
    history = registry.history("churn")
    assert [route.seq for route in history] == list(range(1, PROCESSES * moves + 1))
    for number, output in enumerate(lines):
        mine = [route for route in history if route.actor == f"p{number}"]
        assert [str(route.seq) for route in mine] == output
        assert [route.why for route in mine] == [str(move) for move in range(moves)]
    assert registry.routes_after("churn", 0) == history
    assert registry.verify().clean


def test_a_cache_that_several_processes_fill_at_once_holds_one_intact_release(tmp_path: Path) -> None:
    registry = two_releases(tmp_path)
    lines = run_together([start(OPEN, tmp_path / "registry", tmp_path / "cache") for _ in range(4)])
    assert len({tuple(output) for output in lines}) == 1
    assert entries(tmp_path / "cache") == (1, 0)
    assert registry.verify().clean


def entries(cache: Path) -> tuple[int, int]:
    """How many releases a cache holds, and how many unfinished ones."""
    return len(list((cache / "releases").iterdir())), len(list((cache / "tmp").iterdir()))


def test_a_killed_publisher_leaves_nothing_that_can_be_seen(tmp_path: Path) -> None:
    place, chance = tmp_path / "registry", random.Random(1)
    acknowledged: dict[str, int] = {}
    for attempt in range(20):
        contents = [f"{attempt}-{number}" for number in range(50)]
        process = start(PUBLISH, place, tmp_path / f"work{attempt}", *contents)
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.stdin.write("go\n")
        process.stdin.flush()
        lines = [process.stdout.readline() for _ in range(chance.randrange(4))]
        time.sleep(chance.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        for line in lines + process.communicate(timeout=60)[0].splitlines(keepends=True):
            if line.endswith("\n"):  # the kill may fall into the print itself
                content, number, _ = line.split()
                acknowledged[content] = int(number)
        assert process.returncode == -signal.SIGKILL  # it was still at work
    registry = Registry(FolderStorage(place))
    report = registry.verify()
    assert report.problems == ()
    assert all(key.startswith(("blobs/", "names/")) for key in report.orphans)
    releases = registry.releases("churn")
    assert [release.number for release in releases] == list(range(1, len(releases) + 1))
    assert acknowledged
    for content, number in acknowledged.items():
        manifest = build(tmp_path / "again", content)
        again = registry.publish(tmp_path / "again", manifest, PROVENANCE)
        assert (again.release.number, again.created) == (number, False)
