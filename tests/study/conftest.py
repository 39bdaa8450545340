import time

import pytest

from examples.images import datasets


@pytest.fixture
def at_once(monkeypatch):
    """No data are loaded, and the test takes less than a second of processor time."""

    def loaded(*arguments, **settings):
        pytest.fail("data were loaded")

    monkeypatch.setattr(datasets, "BUILT_IN", dict.fromkeys(datasets.BUILT_IN, loaded))
    began = time.process_time()
    yield
    assert time.process_time() - began < 1
