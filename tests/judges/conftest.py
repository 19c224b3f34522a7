"""The servers that the integration tests have."""

from tests.integration.conftest import published, registry, server

__all__ = ["published", "registry", "server"]
