"""A rating stands for a pool of which nothing is measured."""

from meter.energy.sources.port import Found, Sample
from meter.energy.sources.static import StaticReader


def test_read__is_the_rating_of_one_device() -> None:
    """A pool's rating is the power of a device that is its own, without a counter."""
    found = StaticReader(pool="old", watts=7_000).read()
    assert found == Found(samples=[Sample(device="static:old", power_mw=7_000_000)])
