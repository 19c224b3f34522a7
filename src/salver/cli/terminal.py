"""How the command line prints: answers on stdout, everything else on stderr, colour only on a terminal."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from salver.errors import SalverError

if TYPE_CHECKING:  # a command that prints nothing needs none of it
    from rich.console import Console
    from rich.progress import Progress

PIPE_WIDTH = 200


def stdout() -> Console:
    """The console of answers; wide where no terminal sets a width, so that a pipe gets whole lines."""
    return _console(stderr=False)


def stderr() -> Console:
    """The console of messages, progress and errors."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(stderr=stderr, width=None if terminal else PIPE_WIDTH, highlight=False, emoji=False)


def print_json(value: Any) -> None:
    """One JSON document on stdout, the same for the same facts."""
    document = msgspec.json.format(msgspec.json.encode(value), indent=2)
    sys.stdout.write(document.decode() + "\n")


@contextlib.contextmanager
def aside() -> Iterator[None]:
    """While code that isn't ours runs: what it prints, here or in processes of its own, goes to stderr."""
    sys.stdout.flush()
    answers = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(answers, 1)
        os.close(answers)


def print_line(text: str) -> None:
    """One line of an answer; `text` may hold markup, what comes from outside must be escaped."""
    stdout().print(text, soft_wrap=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, indent: int = 0) -> None:
    """A table on stdout, without a header if `columns` is empty; a column named `#…` is aligned to the right."""
    from rich.cells import cell_len

    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    names = [name.removeprefix("#") for name in columns]
    widths = [max(map(cell_len, column)) for column in zip(*cells, *([names] if names else []), strict=False)]
    right = [name.startswith("#") for name in columns] or [False] * len(widths)
    console = stdout()
    if names:
        console.print(_line(names, widths, right, indent), style="bold", markup=False, soft_wrap=True)
    for row in cells:
        console.print(_line(row, widths, right, indent), markup=False, soft_wrap=True)


def print_facts(facts: Iterable[tuple[str, Any]], *, indent: int = 0) -> None:
    """Names and values below each other; those without a value are left out."""
    print_table((), [(name, value) for name, value in facts if value not in (None, "", [], ())], indent=indent)


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool], indent: int) -> str:
    from rich.cells import cell_len

    parts = []
    for cell, width, to_right in zip(cells, widths, right, strict=False):
        gap = " " * (width - cell_len(cell))
        parts.append(gap + cell if to_right else cell + gap)
    return (" " * indent + "  ".join(parts)).rstrip()


def heading(text: str) -> None:
    """A line above a block of an answer."""
    from rich.markup import escape

    stdout().print(f"\n[bold]{escape(text)}[/bold]")


def note(text: str) -> None:
    """One message on stderr; `text` may hold markup."""
    stderr().print(text, soft_wrap=True)


def complain(problem: SalverError) -> None:
    """An error: what, where, every detail, and what to do."""
    from rich.markup import escape

    console = stderr()
    console.print(f"[bold red]error\\[{problem.code}][/bold red]: {escape(problem.message)}", soft_wrap=True)
    for detail in problem.details:
        console.print(f"  - {escape(detail)}", soft_wrap=True)
    if problem.hint:
        console.print(f"[cyan]hint[/cyan]: {escape(problem.hint)}", soft_wrap=True)


def print_failure(console: Console, where: str, problem: SalverError) -> None:
    """One problem among many, as one line."""
    from rich.markup import escape

    console.print(f"[yellow]{escape(where)}[/yellow]: {escape(problem.message)}", soft_wrap=True)


@contextlib.contextmanager
def working(text: str) -> Iterator[None]:
    """Show that something takes its time; nothing is shown where there is no terminal."""
    from rich.markup import escape

    console = stderr()
    if not console.is_terminal:
        yield
        return
    with console.status(escape(text)):
        yield


@contextlib.contextmanager
def progress(text: str) -> Iterator[Progress]:
    """A bar for work whose length is known; nothing is shown where there is no terminal."""
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn

    console = stderr()
    columns = (
        SpinnerColumn(),
        TextColumn(escape(text)),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(
        *columns, TimeElapsedColumn(), console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        yield bar
