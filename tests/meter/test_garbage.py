"""The garbage collector is held still for a block, and goes on whatever happens in it."""

import gc
from contextlib import suppress

from meter.runtime.garbage import uncollected


def test_uncollected__goes_on_afterwards() -> None:
    """Nothing is collected in the block, nor in one inside it, and it goes on after an error."""
    assert gc.isenabled()
    with suppress(ValueError), uncollected():
        assert not gc.isenabled()
        with uncollected():
            assert not gc.isenabled()
        assert not gc.isenabled()
        raise ValueError
    assert gc.isenabled()
