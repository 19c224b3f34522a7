"""A manifest that can't be read is an error that names its file."""

from __future__ import annotations

import pytest

from salver.errors import SalverError
from salver.release import parse_manifest


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'{"format":1,"model":"\xff"}',
        b'{"format":1,"\xff":1}',
        b'{"format":1,"options":{"a":' + b"[" * 100_000,
    ],
)
def test_a_damaged_manifest_is_named_and_no_crash(data: bytes) -> None:
    with pytest.raises(SalverError, match=r"churn@7/release\.json") as caught:
        parse_manifest(data, where="churn@7/release.json")
    assert caught.value.code == "bad-manifest"
