"""Where every error of a command ends: a message on stderr and an exit code, no traceback."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

from salver.cli import (
    accelerate,
    demo,
    diff,
    doctor,
    env,
    history,
    key,
    listing,
    predict,
    promote,
    release,
    rollback,
    serve,
    show,
    verify,
)  # fmt: skip
from salver.cli.app import app
from salver.errors import SalverError, error

INTERRUPTED = 130
VERBS = (
    release, accelerate, listing, show, diff, verify, serve, promote, rollback, history, key, predict, doctor, env,
    demo,
)  # fmt: skip
"""Every module that registers a verb, in the order of the help."""


def run(arguments: Sequence[str]) -> int:
    """Run one command; returns its exit code."""
    try:
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
        hint = "this is a bug in Salver; SALVER_DEBUG=1 shows where"
        return _report(error("internal", f"{type(problem).__name__}: {problem}", hint=hint), problem)
    return 0


def _report(problem: SalverError, cause: BaseException | None = None) -> int:
    if os.environ.get("SALVER_DEBUG", "").lower() in ("1", "true"):
        traceback.print_exception(cause or problem)
    from salver.cli.terminal import complain

    complain(problem)
    return problem.meaning.exit
