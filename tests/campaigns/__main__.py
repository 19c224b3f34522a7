"""`make campaign ID=R1` runs one campaign; without an ID it lists them."""

from __future__ import annotations

import ast
import sys
from importlib import import_module
from pathlib import Path


def campaigns(folder: Path) -> dict[str, str]:
    """The campaigns of a folder: ID and the first sentence of its module."""
    found = {}
    for path in sorted(folder.glob("[a-z]*[0-9].py"), key=lambda path: (path.stem[0], int(path.stem[1:]))):
        said = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
        found[path.stem.upper()] = said.splitlines()[0] if said else ""
    return found


def main(argv: list[str]) -> int:
    """Run the campaign that `argv` names, with the rest of `argv` as its own arguments."""
    known = campaigns(Path(__file__).parent)
    if not argv:
        print("make campaign ID=... runs one of:")
        for name, said in known.items():
            print(f"  {name:4} {said}")
        return 0
    wanted = argv[0].upper()
    if wanted not in known:
        print(f"no campaign {argv[0]!r}; there are: {', '.join(known) or 'none yet'}", file=sys.stderr)
        return 2
    status = import_module(f"tests.campaigns.{wanted.lower()}").main(argv[1:])
    return int(status or 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
