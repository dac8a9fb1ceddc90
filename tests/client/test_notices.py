"""The client's log: what an operator needs, and no flood of it."""

import logging
from typing import Final

import pytest

from tests.client.spool.disk import Disk
from tokenworks.client.fallback import FallbackHold
from tokenworks.client.notices import Notices
from tokenworks.client.spool import Spool, SpoolOptions
from tokenworks.client.tally import Tally

LOG: Final = logging.getLogger("tests.notices")


def test_tell__disk_that_comes_and_goes_is_told_now_and_then(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The first fault is told at once, then at most one change in ten seconds, the last one too."""
    notices = Notices(LOG, tally=Tally(), target="t", producer="p")
    hold = FallbackHold(Spool.open(Disk(), producer="p", options=SpoolOptions()))
    for step in range(51):
        hold.works = step % 2 == 1
        notices.spool_seen(hold, lost_before=-step)
        notices.tell(0.2 * step)
        assert caplog.text.count("spool_failing") >= 1, "at once"
    told = [record.message.split()[0] for record in caplog.records]
    assert told.count("spool_failing") + told.count("spool_working") <= 2
    assert told.count("spool_lost") <= 2
    hold.works = True
    notices.spool_seen(hold, lost_before=-100)
    notices.tell(1_000.0)
    assert "spool_working" in caplog.text
    assert "total=100" in caplog.text
