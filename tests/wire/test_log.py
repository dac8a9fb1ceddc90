"""What a meter that runs writes into its log."""

import json
from pathlib import Path

import grpc
import pytest

from cli.log_events import CATALOGUE
from meter.log_events import CONTEXT
from tests.postgres import Cluster
from tests.running_meter import running_meter_on
from tests.wire.session import Session, opening
from tests.wire.talk import failure_of

FIELDS = {event.name: set(event.fields) for event in CATALOGUE}
FRAME = {"time", "level", "logger", "event", "traceback"}


def test_log__tells_of_starts_refusals_and_ends(cluster: Cluster, tmp_path: Path) -> None:
    """A run's log has its start, each refusal with its call, and its end; no API key."""
    settings = {"log_format": "json"}
    with (
        cluster.database() as url,
        running_meter_on(url, folder=tmp_path, settings=settings) as meter,
    ):
        session = Session(meter)
        unknown = f"{meter.api_key[:-4]}aaaa"
        assert failure_of(lambda: Session(meter, api_key=unknown).create_account("acme"))
        with pytest.raises(grpc.RpcError):
            session.exchange(opening("gpu-1"), opening("gpu-1"))
        assert meter.stop() == 0
        log = meter.log.read_text("utf-8")
    assert meter.api_key not in log
    assert unknown not in log
    lines = [json.loads(line) for line in log.splitlines()]
    for line in lines:
        own = line.keys() - FRAME
        assert own <= FIELDS[line["event"]] | CONTEXT.keys()
    # Who holds which shard is told among them, whenever it is so.
    lines = [line for line in lines if not line["event"].startswith("shard_")]
    events = [line["event"] for line in lines]
    refused = ["call_refused"] * 2
    assert events == ["meter_started", *refused, "meter_stopping", "meter_stopped"]
    assert lines[0]["grpc"] == meter.target
    stranger, twice = lines[1:3]
    assert stranger["rpc"] == "AccountService/CreateAccount"
    assert (stranger["code"], stranger["reason"]) == ("UNAUTHENTICATED", "API_KEY_MALFORMED")
    assert "key_id" not in stranger
    assert (twice["rpc"], twice["producer"]) == ("MeterService/StreamUsage", "gpu-1")
    assert (twice["reason"], twice["level"]) == ("STREAM_NOT_OPENED", "warning")
    assert twice["key_id"].startswith("key_")
