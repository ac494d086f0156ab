"""One broker for all tests that need one, started when the first of them does; and no test is timed by Hypothesis."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

settings.register_profile("house", deadline=None)  # that a machine has much else to do is no failure
settings.load_profile("house")

SAID = pytest.StashKey[str]()


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[str]:
    """Bootstrap servers of the broker that `tests/containers.py` chooses."""
    from tests.containers import choose  # half a second that tests without a broker need not wait

    bootstrap, ours, said = choose(tmp_path_factory.mktemp("broker"))
    pytestconfig.stash[SAID] = said
    yield bootstrap
    if ours:
        ours.stop()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if said := config.stash.get(SAID, ""):
        terminalreporter.write_line(f"broker: {said}")
