"""The servers that the integration tests have."""

from tests.integration.conftest import noting, published, registry, server

__all__ = ["noting", "published", "registry", "server"]
