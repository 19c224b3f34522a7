"""What a gateway serves right now: the loaded releases, their dispatchers, and the one pointer per model."""

from __future__ import annotations

import asyncio
import gc
import time
from bisect import bisect_left
from collections.abc import Callable

from salver import metrics
from salver.dispatch.call import Call
from salver.dispatch.call import Limits as BatchLimits
from salver.dispatch.dispatcher import Dispatcher
from salver.errors import SalverError, error
from salver.frames import Answers, Counted, Piece
from salver.gateway.answers import Clock, Heads
from salver.gateway.paths import Target
from salver.gateway.table import Loaded, Table
from salver.limits import Limits

MAX_FRAME_REQUESTS = 256
PATIENCE = 5.0
"""Seconds that the first release of a model may take to answer before the others are called effective without it."""
CLOSED = 1.0
"""Seconds after which a release that left has no connection any more: its cycles are then freed, 0.1 MB each."""
NANOSECONDS, FINE = ([round(bound * 1e9) for bound in bounds] for bounds in (metrics.SECONDS, metrics.FINE))
OF_WORKERS = {"too-many-rows": "rows", "too-large": "elements", "too-many-tensors": "tensors"}
"""The limits that a worker keeps, by the codes of its answers."""

MESSAGES = {
    "overloaded": ("too many requests wait", "try again after the time in Retry-After"),
    "would-miss-deadline": ("so many requests wait that its deadline would pass", "x-request-timeout-ms sets it"),
    "deadline-exceeded": ("no answer was ready before the deadline", "x-request-timeout-ms sets it"),
    "worker-died": ("the worker died and this model may not be asked twice", "its release declares side effects"),
    "answer-broken-off": ("the worker died before the answer was whole", "ask again"),
    "poison-request": ("this body killed two workers and is refused for ten minutes", "the server's log has the crash"),
    "draining": ("this server is stopping", "try again"),
}
"""What is said of a request that got no prediction, and what to do, by the code of the error."""


class Entry:
    """One loaded release: its facts, its dispatcher, its answers' heads and its metrics.

    `refusals` are the status, body and media type of each refusal that was needed, by code and protocol. `batch` is the
    model call whose answers are being written, None at any other time.
    """

    __slots__ = ("batch", "dispatcher", "entered", "heads", "loaded", "refusals", "tally")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        loaded: Loaded,
        limits: BatchLimits,
        tally: Tally,
        clock: Clock,
        on_change: Callable[[], None],
    ) -> None:
        self.loaded = loaded
        self.entered = loop.time()
        self.heads = Heads(loaded.release, clock)
        self.tally = tally
        self.batch: Answers | None = None
        self.refusals: dict[tuple[str, str], tuple[int, bytes, str]] = {}
        retry = loaded.side_effects != "unsafe"
        self.dispatcher = Dispatcher(loop, limits, self, retry=retry, release_id=loaded.id, on_change=on_change)

    def connect(self, loaded: Loaded) -> None:
        """Follow a new list of workers."""
        self.loaded = loaded
        self.dispatcher.set_workers({worker.name: worker.address for worker in loaded.workers})

    def answered(self, answers: Answers, columns: list[Call | None], replies: list[Call | None], now: int) -> None:
        """Write every answer to the connection that waits for it, and count them."""
        self.batch = answers
        if columns:
            head = self.heads.ok(now)
            for call, body in zip(columns, answers.bodies, strict=True):
                if call is not None:
                    call.owner.predicted(call, head, body, now)
        for call, reply in zip(replies, answers.replies, strict=True):
            if call is not None:
                call.owner.replied(call, reply, now)
        self.batch = None
        self.tally.batch(answers, columns, replies, now)

    def counted(self, counted: Counted) -> None:
        """Count what was odd in answered requests."""
        self.tally.add("salver_extra_fields", counted.extra_fields)
        self.tally.add("salver_unseen_values", counted.unseen_values)

    def problem(self, code: str) -> SalverError:
        """The error of a request to this release that got no prediction."""
        message, hint = MESSAGES[code]
        return error(code, f"{self.loaded.release}: {message}", hint=hint)

    def pieced(self, call: Call, piece: Piece, now: int) -> None:
        """Hand on a part of an answer."""
        self.tally.add("salver_stream_pieces")
        call.owner.pieced(call, piece, now)

    def failed(self, call: Call, code: str) -> None:
        """Tell the connection that no worker answered."""
        call.owner.failed(call, code)


class Tally:
    """Counts one release's requests in this gateway's block."""

    __slots__ = (
        "_batch_rows",
        "_bytes",
        "_cells",
        "_phases",
        "_queue",
        "_refused",
        "_requests",
        "_row",
        "_row_errors",
        "_rows",
        "_seconds",
    )

    def __init__(self, block: metrics.Block, slot: int) -> None:
        row = block.row(slot)
        at = metrics.RELEASE_AT
        self._cells = block.cells
        self._row = row
        self._requests = {status: row + at["salver_requests"] + i for i, status in enumerate(metrics.STATUSES)}
        self._refused = {reason: row + at["salver_refused"] + i for i, reason in enumerate(metrics.REASONS)}
        self._rows = row + at["salver_rows"]
        self._row_errors = row + at["salver_row_errors"]
        self._bytes = row + at["salver_request_bytes"]
        self._seconds = row + at["salver_request_seconds"]
        self._queue = row + at["salver_queue_seconds"]
        self._batch_rows = row + at["salver_batch_rows"]
        width = len(FINE) + 2
        self._phases = [row + at["salver_phase_seconds"] + i * width for i in range(len(metrics.PHASES))]

    def refused(self, code: str, limit: str = "") -> None:
        """One request got no prediction; a `limit` that it names is counted where that is said."""
        self._cells[self._refused.get(code) or self._refused["other"]] += 1.0
        if code == "overloaded" and not limit:
            self._bound("queue")

    def _bound(self, limit: str) -> None:
        self._cells[metrics.GATEWAY_AT["salver_limit_hits"] + metrics.LIMITS.index(limit)] += 1.0

    def batch(self, answers: Answers, columns: list[Call | None], replies: list[Call | None], now: int) -> None:
        """One model call, and the requests it answered."""
        cells = self._cells
        self._batch(answers)
        taken = [call for call in columns if call is not None]
        fine = rows = len(taken)
        row_errors = 0
        for call, reply in zip(replies, answers.replies, strict=True):
            if call is None:
                continue
            taken.append(call)
            rows += reply.rows
            if reply.status == 200:
                fine += 1
                row_errors += reply.row_errors
            elif reply.code != "deadline-exceeded":
                cells[self._requests.get(str(reply.status)) or self._requests["other"]] += 1.0
                if reply.code in OF_WORKERS:
                    self._bound(OF_WORKERS[reply.code])
        if not taken:
            return
        started = [call.started for call in taken]
        oldest, newest, total = min(started), max(started), sum(started)
        self._times(self._seconds, started, (oldest, newest, total), now)
        if sent := taken[0].sent or taken[-1].sent:
            self._times(self._queue, started, (oldest, newest, total), sent)
        cells[self._requests["200"]] += fine
        cells[self._bytes] += sum([len(call.body) for call in taken])
        cells[self._rows] += rows
        cells[self._row_errors] += row_errors

    def _times(self, first: int, started: list[int], span: tuple[int, int, int], now: int) -> None:
        """Count in a histogram how long before `now` each began: mostly one bucket holds the whole batch.

        `span` are the oldest and the newest of them, and the sum of all.
        """
        cells, count = self._cells, len(started)
        slowest = bisect_left(NANOSECONDS, now - span[0])
        if slowest == bisect_left(NANOSECONDS, now - span[1]):
            cells[first + slowest] += count
        else:
            for moment in started:
                cells[first + bisect_left(NANOSECONDS, now - moment)] += 1.0
        cells[first + len(NANOSECONDS) + 1] += (now * count - span[2]) * 1e-9

    def _batch(self, answers: Answers) -> None:
        if not answers.rows:
            return
        cells, first = self._cells, self._batch_rows
        cells[first + bisect_left(metrics.SIZES, answers.rows)] += 1.0
        cells[first + len(metrics.SIZES) + 1] += answers.rows
        for phase, took in zip(self._phases, (answers.decode_ns, answers.predict_ns, answers.encode_ns), strict=True):
            cells[phase + bisect_left(FINE, took)] += 1.0
            cells[phase + len(FINE) + 1] += took * 1e-9

    def add(self, name: str, amount: float = 1.0) -> None:
        """Add to a counter or gauge off the hot path."""
        self._cells[self._row + metrics.RELEASE_AT[name]] += amount

    def set(self, name: str, value: float) -> None:
        """Set a gauge off the hot path."""
        self._cells[self._row + metrics.RELEASE_AT[name]] = value


class Serving:
    """Follows the tables of the follower: connects first, then swaps, then lets go of the old."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        limits: Limits,
        block: metrics.Block,
        on_effective: Callable[[int, float], None],
    ) -> None:
        self.table = Table(0, (), {}, (), {})
        self.live: dict[str, Entry] = {}
        self.entries: dict[tuple[str, int], Entry] = {}
        self.draining = False
        self.opened = True  # False while a port is still to be opened
        self._loop = loop
        self._limits = limits
        self._block = block
        self._clock = Clock()
        self._on_effective = on_effective
        self._owed = False  # whether the table in force is still to be called effective
        self._slots: dict[str, int] = {}

    @property
    def ready(self) -> bool:
        """Whether every routed model has a proven worker on its live release, every port is open, nothing drains."""
        return self.opened and self.models_ready and not self.draining

    @property
    def models_ready(self) -> bool:
        """Whether every routed model has a proven worker on its live release."""
        routed = self.table.routed
        return bool(routed) and all(self.model_ready(model) for model in routed)

    def model_ready(self, model: str) -> bool:
        """Whether the live release of a model has a proven worker."""
        entry = self.live.get(model)
        return entry is not None and entry.dispatcher.ready > 0

    def named(self, target: Target, model: str, *, telling: bool) -> Target | SalverError:
        """A target whose path names no model, with the one that a header names, or the only one there is.

        `telling` allows the error to list the models.
        """
        if model or len(self.table.routed) == 1:
            return target._replace(model=model or self.table.routed[0])
        if not self.table.routed:
            return error("not-ready", "no model is in service yet", hint="try again")
        names = f": {', '.join(sorted(self.table.routed))}" if telling else ""
        return error("bad-request", f"this server has several models{names}", hint="name one in x-salver-model")

    def find(self, model: str, number: int | None) -> Entry | SalverError:
        """The release that answers, or the error that does."""
        if number is None:
            entry = self.live.get(model)
            return entry if entry is not None else self._missing(model)
        pinned = self.entries.get((model, number))
        if pinned is not None:
            return pinned
        loaded = sorted(n for name, n in self.entries if name == model)
        if not loaded:
            return self._missing(model)
        names = ", ".join(f"{model}@{n}" for n in loaded)
        return error("release-not-loaded", f"{model}@{number} is not loaded here", hint=f"loaded: {names}")

    def _missing(self, model: str) -> SalverError:
        if model in self.table.routed or not self.table.version:
            return error("not-ready", f"{model} has no release in service yet", hint="it is loading; try again")
        names = ", ".join(sorted(self.table.routed)) or "no model"
        return error("no-such-model", f"no model named {model!r} is served here", hint=f"this server has {names}")

    def apply(self, table: Table) -> None:
        """Take the newest table: connect to what is new; the swap follows when the new live releases answer."""
        self.table, self._owed = table, True
        self.draining = self.draining or table.draining
        for loaded in table.releases:
            key = (loaded.model, loaded.number)
            if key not in self.entries:
                self.entries[key] = self._enter(loaded, table.slots.get(loaded.release, 0))
            self.entries[key].connect(loaded)
        self._swap()

    def _enter(self, loaded: Loaded, slot: int) -> Entry:
        if self._slots.get(loaded.release) != slot and slot in self._slots.values():
            self._block.clear(slot)
        self._slots = {name: at for name, at in self._slots.items() if at != slot} | {loaded.release: slot}
        tally = Tally(self._block, slot)
        tally.set("salver_workers_connected", 0.0)
        tally.set("salver_open_streams", 0.0)
        most = min(loaded.max_batch, MAX_FRAME_REQUESTS)
        limits = BatchLimits(
            batch_requests=most,
            queue_requests=self._limits.queue_batches * max(1, len(loaded.workers)) * most,
            queue_bytes=self._limits.queue_bytes,
            busy=loaded.concurrency,
        )

        def changed() -> None:
            tally.set("salver_workers_connected", float(entry.dispatcher.ready))
            self._swap()

        entry = Entry(self._loop, loaded, limits, tally, self._clock, changed)
        self._loop.call_later(PATIENCE, self._swap)
        return entry

    def _swap(self) -> None:
        """Point each model at its live release once that has a proven worker: the last one answers until then.

        Where there is no last one, nothing is lost by going on without a release whose workers don't come.
        """
        table, now = self.table, self._loop.time()
        began = time.perf_counter_ns()
        live, settled = {}, True
        for model, number in table.live.items():
            entry, last = self.entries[model, number], self.live.get(model)
            if entry is last or entry.dispatcher.ready:
                live[model] = entry
            elif last is not None:
                live[model], settled = last, False
            elif now < entry.entered + PATIENCE:
                settled = False
        if live != self.live:
            self.live = live
        if not settled or not self._owed:
            return
        self._owed = False
        swap_ms = (time.perf_counter_ns() - began) / 1e6
        keep = {(loaded.model, loaded.number) for loaded in table.releases}
        gone = [self.entries.pop(key) for key in list(self.entries) if key not in keep]
        self._loop.create_task(self._let_go(gone, table.version, swap_ms))

    async def _let_go(self, gone: list[Entry], version: int, swap_ms: float) -> None:
        """Wait for the last answers of the releases that left, then say that the table is effective."""
        for entry in gone:
            await entry.dispatcher.drained()
            entry.dispatcher.close()
        for entry in list(self.entries.values()):
            await entry.dispatcher.parted()
        self._on_effective(version, swap_ms)
        if gone:
            self._loop.call_later(CLOSED, gc.collect)
