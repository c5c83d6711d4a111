"""Fixtures: a broker for one test, or one shared by the tests of a worker."""

import itertools
import os

import pytest

from harness import Broker

_numbers = itertools.count()


@pytest.fixture(scope="session")
def _shared(tmp_path_factory):
    broker = Broker(tmp_path_factory.mktemp("shared")).start()
    yield broker
    broker.end()


@pytest.fixture
def broker(_shared):
    """A shared broker: use `unique` names. It must survive every test."""
    if _shared.process is None or _shared.process.poll() is not None:
        _shared.process = None
        _shared.start()
    yield _shared
    _shared.check()


@pytest.fixture
def own_broker(tmp_path):
    """Creates brokers for one test and stops them after it."""
    made = []

    def make(start=True, **options):
        broker = Broker(tmp_path / f"broker-{len(made)}", **options)
        made.append(broker)
        return broker.start() if start else broker

    yield make
    for broker in made:
        try:
            broker.check()
        finally:
            broker.end()


@pytest.fixture
def unique():
    """A name that no other test uses."""
    return f"t{os.getpid()}x{next(_numbers)}"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Adds the end of the broker's log to the report of a failed test."""
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for name in ("broker", "_shared"):
            found = item.funcargs.get(name)
            if isinstance(found, Broker):
                report.sections.append(("end of the broker's log", found.log()[-3000:]))
                break
