from __future__ import annotations

from typing import Any

LIMIT = 200.0


def capped(values: Any) -> Any:
    return values.clip(0.0, LIMIT)
