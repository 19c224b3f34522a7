"""What tests of several frameworks share."""

from __future__ import annotations

import pytest


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other processes compute as this one does: how many threads share a sum decides its last bits."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
