"""Where every error of a command ends: a message on stderr and an exit code, no traceback."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from itertools import chain

from salver.cli.app import GROUPS, app
from salver.errors import SalverError, error
from salver.worker.lifeline import lossy

INTERRUPTED = 130
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_ELSEWHERE = {"list": "listing"}
"""The module that registers a verb, where that is not named like it."""


def register(asked: str = "") -> None:
    """Import the module of this verb, or of all verbs: to build every command is a third of the start of one."""
    verbs = list(chain.from_iterable(GROUPS.values()))
    for verb in [asked] if asked in verbs else verbs:
        import_module(f"salver.cli.{_ELSEWHERE.get(verb, verb)}")


def open_streams() -> None:
    """Open what of stdin, stdout and stderr came closed, as the next file would take its number, and with it its words.

    A stderr that is full or hung up ends no command.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)  # the lowest that is free, which is this one's
            os.set_inheritable(descriptor, True)
            setattr(sys, name, os.fdopen(descriptor, mode))
    sys.stderr = lossy(sys.stderr)


def run(arguments: Sequence[str]) -> int:
    """Run one command; returns its exit code."""
    try:
        register(*arguments[:1])
        app(args=list(arguments), prog_name="salver")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except SalverError as problem:
        return _report(problem)
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as problem:
        if isinstance(problem, OSError) and problem.errno in NO_ROOM:
            what = f"{problem.filename or 'the output'} can't be written: {problem.strerror}"
            return _report(error("storage-failed", what, hint="make room there and try again"))
        hint = "this is a bug in Salver; SALVER_DEBUG=1 shows where"
        return _report(error("internal", f"{type(problem).__name__}: {problem}", hint=hint), problem)
    return 0


def _report(problem: SalverError, cause: BaseException | None = None) -> int:
    if os.environ.get("SALVER_DEBUG", "").lower() in ("1", "true"):
        traceback.print_exception(cause or problem)
    from salver.cli.terminal import complain

    complain(problem)
    return problem.meaning.exit
