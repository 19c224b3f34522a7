"""What a server says on stderr: one line per event, for people or as JSON."""

from __future__ import annotations

import json
import sys
from typing import Any, TextIO

from salver.supervisor.reconcile import Tell
from salver.supervisor.state import SLOW_RETRY

SLOW = {
    "opening": "it is fetched and verified, and its environment made ready",
    "starting": "its workers load it, reproduce its golden rows and warm up",
}
"""What is going on with a release of which it is told that it is not ready yet."""


class Voice:
    """Says things; `as_json` makes every line one JSON object with an `event`."""

    def __init__(self, as_json: bool, address: str = "", out: TextIO | None = None) -> None:
        self.address = address
        self._as_json = as_json
        self._out = out or sys.stderr

    def say(self, event: str, text: str, **fields: Any) -> None:
        """Say one thing."""
        line = json.dumps({"event": event, "text": text, **fields}) if self._as_json else text
        self._out.write(line + "\n")
        self._out.flush()

    def tell(self, tell: Tell) -> None:
        """Say what became of a release."""
        keeps = f" · {tell.keeps} keeps serving" if tell.keeps else ""
        if tell.kind in SLOW:
            text = f"{tell.release} is not ready after {tell.seconds:.0f} s: {SLOW[tell.kind]}{keeps}"
            self.say(tell.kind, text, release=tell.release, seconds=tell.seconds, keeps=tell.keeps)
            return
        if tell.failure is None:
            workers = f"{tell.workers} worker{'s' if tell.workers != 1 else ''}"
            workers += f" and {tell.loading} more to come" if tell.loading else ""
            how = f"loaded in {tell.seconds:.1f} s" if tell.seconds is not None else "it was warm"
            text = f"{tell.release} is live on {self.address} ({workers}, {how})"
            self.say("live", text, release=tell.release, seconds=tell.seconds)
            return
        failure = tell.failure
        said = "can't be loaded yet and is tried again"
        if tell.kind == "refused":
            slowly = f"can't be loaded and is tried again every {SLOW_RETRY:.0f} s"
            said = "was refused" if failure.retry_at is None else slowly
        text = f"{tell.release} {said}: {failure.message}"
        text += "".join(f"\n  - {detail}" for detail in failure.details)
        if failure.hint:
            text += f" · hint: {failure.hint}"
        text += keeps
        fields = {"code": failure.code, "message": failure.message, "hint": failure.hint, "details": failure.details}
        self.say(tell.kind, text, release=tell.release, keeps=tell.keeps, **fields)
