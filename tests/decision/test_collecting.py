"""What is loaded while a process serves is set aside; else nothing is touched."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from decision.collecting import loading, settled


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    assert gc.get_threshold() == before
    assert gc.isenabled()
    gc.unfreeze()


def test_what_is_loaded_while_it_serves_is_set_aside() -> None:
    with settled():
        frozen = gc.get_freeze_count()
        assert frozen > 10_000
        assert gc.get_threshold()[0] > 10_000
        with loading():
            assert not gc.isenabled()
            kept = [[n] for n in range(1000)]
        assert gc.isenabled()
        assert gc.get_freeze_count() >= frozen + len(kept)
        with pytest.raises(LookupError), loading():
            raise LookupError
        assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_before_it_serves_nothing_is() -> None:
    with loading():
        assert gc.isenabled()
    assert gc.get_freeze_count() == 0
