"""`misdeclared.py METHOD SCOPE serve …`: `salver serve` whose gateways declare the wrong scope for one gRPC method.

The fault that a matrix of scopes has to find; nothing else is changed.
"""

from __future__ import annotations

import dataclasses
import sys
from typing import NoReturn

from salver.gateway.grpc import port
from salver.gateway.grpc.service import Method
from salver.supervisor import plan


def wrong(method: str, scope: str) -> None:
    """Declare another scope from now on."""
    declared = port.every_method

    def every_method() -> dict[bytes, Method]:
        table = declared()
        path = method.encode()
        return {**table, path: table[path]._replace(scope=scope)}

    port.every_method = every_method


def main(method: str, scope: str, *rest: str) -> int:
    """Be the gateway where `rest` says so, else the command line."""
    if rest[0] == "gateway":
        from salver.gateway.__main__ import main as serve

        wrong(method, scope)
        sys.argv[1:] = rest[1:]
        return serve()
    from salver.cli.boundary import run

    become = plan.serve

    def become_wrong(wanted: plan.Plan) -> NoReturn:
        own = (sys.executable, "-P", __file__, method, scope, "gateway")
        become(dataclasses.replace(wanted, gateway=(*own, *wanted.gateway[4:])))

    plan.serve = become_wrong
    return run(list(rest))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
