"""`python -m salver` and the `salver` command."""

from __future__ import annotations

import sys

from salver.cli.boundary import open_streams, run


def main() -> None:
    """Run the command line of this process and exit with its code."""
    open_streams()
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
