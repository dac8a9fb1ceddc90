"""Random worlds: whatever moves, changes, overlaps or rounds, product and oracle bill the same."""

import pytest

from tests.acceptance.rated_worlds import bill_worlds


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("worlds", [500, pytest.param(2_000, marks=pytest.mark.stacks)])
def test_world__billed_as_the_oracle_does(worlds: int) -> None:
    """By event, by interval and by the oracle random worlds come to the same lines."""
    # `python -m tests.acceptance` has time for more.
    found = bill_worlds(range(worlds))
    assert not found, found[:3]
