"""One broker for all tests that need one, started when the first of them does."""

import os
from collections.abc import Iterator

import pytest

from streams.broker import LocalBroker


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Bootstrap servers: those of KAFKA_BOOTSTRAP_SERVERS, or of a broker of this session's own."""
    if given := os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        yield given
        return
    with LocalBroker(tmp_path_factory.mktemp("broker")) as local:
        yield local.bootstrap
