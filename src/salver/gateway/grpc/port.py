"""The gRPC port put together: every service it offers."""

from __future__ import annotations

from salver.gateway.front import Front
from salver.gateway.grpc import health, methods, reflection
from salver.gateway.grpc.service import Service


def service_of(front: Front) -> Service:
    """The gRPC port of a gateway; it numbers its predictions together with the HTTP port that `front` is of."""
    return Service(front, methods.methods() | health.methods() | reflection.methods())
