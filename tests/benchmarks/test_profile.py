"""The profile of a row: tables of who had a core, and of what Postgres did."""

import pytest

from benchmarks.profile import main


@pytest.mark.stacks
def test_profile__tells_where_time_goes(capsys: pytest.CaptureFixture[str]) -> None:
    """A row of a meter is told with its threads, its statements, and its writes."""
    assert main(["ingest.events", "--seconds", "0.5"]) == 0
    printed = capsys.readouterr().out
    assert "meter: event loop" in printed
    assert "INSERT INTO bare" in printed
    assert "client backend, wal, normal" in printed
    assert "ingest.events: " in printed


def test_profile__refuses_a_row_without_a_meter(capsys: pytest.CaptureFixture[str]) -> None:
    """Where no meter is started there is nothing to look at, and that is said."""
    with pytest.raises(SystemExit) as raised:
        main(["spool.append", "--seconds", "0.2"])
    assert raised.value.code == 2
    assert "spool.append starts no meter" in capsys.readouterr().err
