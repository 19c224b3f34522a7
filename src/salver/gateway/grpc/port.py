"""The gRPC port put together: every service it offers."""

from __future__ import annotations

from salver.gateway.front import Front
from salver.gateway.grpc import health, methods, reflection
from salver.gateway.grpc.service import Method, Service


def every_method() -> dict[bytes, Method]:
    """The table of methods: each by its path, with the scope that its callers need."""
    return methods.methods() | health.methods() | reflection.methods()


def service_of(front: Front) -> Service:
    """The gRPC port of a gateway; it numbers its predictions together with the HTTP port that `front` is of."""
    return Service(front, every_method())
