"""A row that tests the harness: a broken sender must be caught."""

from tests.faults.row import Seen, row
from tests.faults.site import Site


@row(
    "self-test-naive-retry",
    fault="none but the sender's: it repeats a call that failed under new event ids",
    how="a proxy swallows answers of calls that were recorded; the sender then tries again",
    expected="the checker says so: doubled > 0 (this row tests the harness, not the meter)",
    wants_doubled=True,
)
def naive_retry(site: Site) -> Seen:
    """Let a naive sender meet lost answers."""
    site.call("naive", naive=True)
    site.load(2)
    site.proxy.mischief.swallows.add("down")
    site.wait_for_progress()
    site.load(1)
    site.proxy.heal()
    site.load(2)
    return Seen(count=site.proxy.swallowed_bytes, what="bytes of answers swallowed")
