"""What the files of control groups say, without the files."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from salver.supervisor.cgroup import V1, V2, Version, limit_in, place_in, upwards, working_set

OF_V1 = "12:cpu,cpuacct:/docker/1f2e\n4:memory:/docker/1f2e\n1:name=systemd:/docker/1f2e\n0::/docker/1f2e\n"
OF_BOTH = "3:cpuset:/\n0::/system.slice/salver.service\n"


@pytest.mark.parametrize(
    ("text", "version", "path"),
    [
        ("0::/\n", V2, "/"),
        ("0::/kubepods/pod1/c1\n", V2, "/kubepods/pod1/c1"),
        (OF_V1, V1, "/docker/1f2e"),
        (OF_BOTH, V2, "/system.slice/salver.service"),
        ("0::/a:b\n", V2, "/a:b"),
    ],
)
def test_the_group_that_accounts_for_memory_is_found_in_both_versions(text: str, version: Version, path: str) -> None:
    assert place_in(text) == (version, PurePosixPath(path))


def test_where_nothing_accounts_for_memory_there_is_no_group() -> None:
    assert place_in("3:cpuset:/\n1:name=systemd:/\n") is None


def test_a_limit_of_a_parent_counts_and_what_lies_outside_of_view_is_the_top() -> None:
    assert [str(path) for path in upwards(PurePosixPath("/kubepods/pod1/c1"))] == [
        "/kubepods/pod1/c1",
        "/kubepods/pod1",
        "/kubepods",
        "/",
    ]
    assert upwards(PurePosixPath("/../../other")) == [PurePosixPath("/")]


@pytest.mark.parametrize(
    ("text", "limit"),
    [("max\n", None), ("9223372036854771712\n", None), ("0\n", None), ("536870912\n", 536870912)],
)
def test_no_limit_has_a_word_in_one_version_and_a_number_in_the_other(text: str, limit: int | None) -> None:
    assert limit_in(text) == limit


def test_files_that_are_not_needed_are_no_part_of_the_working_set() -> None:
    two = "anon 300\nfile 600\ninactive_file 500\nactive_file 100\n"
    assert working_set("1000\n", two, V2) == 500
    one = "cache 600\ninactive_file 1\ntotal_inactive_file 400\n"
    assert working_set("1000\n", one, V1) == 600, "that of the groups below counts as well"
    assert working_set("1000\n", "anon 300\n", V2) == 1000
    assert working_set("100\n", two, V2) == 0
