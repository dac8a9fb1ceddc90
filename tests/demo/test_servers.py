"""The simulated servers, against a meter that answers as the contract says."""

from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest

from cli.demo.servers import Plan, running_servers
from cli.demo.world import BEGIN, END, SERVERS, to_ms
from cli.process import CommandError
from tests.simulate.fake_meter import API_KEY, FakeMeter, read_truth, running
from tokenworks.meter.v1.usage_pb2 import TokenClass

EVENTS = 3_000


def _plan(meter: FakeMeter, folder: Path, *, resend_percent: float = 0.0) -> Plan:
    for name in ("truth", "logs"):
        (folder / name).mkdir()
    return Plan(
        target=meter.target,
        api_key=API_KEY,
        event_count=EVENTS,
        seed=1,
        resend_percent=resend_percent,
        truth=folder / "truth",
        logs=folder / "logs",
    )


def test_servers__a_month_in_two_spans(tmp_path: Path) -> None:
    """Each request is in a truth file before it is reported, and reported as it stands there."""
    heard: list[int] = []
    with running(FakeMeter(truth=tmp_path / "truth")) as meter:
        plan = _plan(meter, tmp_path, resend_percent=20)
        with running_servers(plan, on_progress=heard.append) as servers:
            servers.report(until_ms=to_ms(BEGIN + timedelta(days=15)))
            servers.wait()
            middle = len(read_truth(tmp_path / "truth"))
            servers.report(until_ms=to_ms(END))
            servers.wait()
            progress = servers.progress
    assert meter.untold == []
    assert 0 < middle < EVENTS == heard[-1] == sum(it.acknowledged for it in progress)
    assert sum(it.resent_batches for it in progress) == meter.repeats.total() > 0
    truth = read_truth(tmp_path / "truth")
    assert len(truth) == len({it["request_id"] for it in truth}) == EVENTS
    told: Counter[str] = Counter()
    for event in truth:
        told.update(event["classes"])
    assert _reported(meter) == told


def test_servers__meter_that_is_stuck(tmp_path: Path) -> None:
    """Who waits for batches under way hears how many requests nobody has acknowledged."""
    with running(FakeMeter(is_silent=True)) as meter:
        plan = _plan(meter, tmp_path)
        with running_servers(plan, on_progress=lambda _: None) as servers:
            servers.report(until_ms=to_ms(BEGIN))
            servers.wait()
            servers.report(until_ms=to_ms(END))
            servers.wait_for_batch()
            under_way = servers.wait_until_stuck()
            progress = servers.progress
    assert sum(it.batches for it in progress) >= 1
    assert sum(it.acknowledged for it in progress) == 0
    assert under_way == sum(it.sent for it in progress) > 0
    assert len(progress) == len(SERVERS)


def test_servers__one_that_died(tmp_path: Path) -> None:
    """A server that ends before it has reported is named."""
    with running(FakeMeter()) as meter:
        plan = _plan(meter, tmp_path)
        (tmp_path / "truth" / "server-2.jsonl").touch()
        with (
            running_servers(plan, on_progress=lambda _: None) as servers,
            pytest.raises(CommandError, match="server-2 has died"),
        ):
            servers.report(until_ms=to_ms(END))
            servers.wait()


def _reported(meter: FakeMeter) -> Counter[str]:
    """Add up by class what was kept."""
    sums: Counter[str] = Counter()
    for columns in meter.columns():
        for column in columns.tokens:
            name = TokenClass.Name(column.token_class).removeprefix("TOKEN_CLASS_").lower()
            sums[name] += sum(column.counts)
    return +sums
