"""Every metric of the catalogue moves when what it means happens."""

from pathlib import Path

import grpc
import psycopg
import pytest

from billing.metrics import CATALOGUE as BILLING_CATALOGUE
from meter.metrics import CATALOGUE as METER_CATALOGUE
from tests.postgres import Cluster
from tests.running_meter import RunningMeter, running_meter_on
from tests.wire.session import Session, event, opening, rows
from tests.wire.talk import (
    commits_held,
    counting_held,
    read_http,
    read_metric,
    talking,
    wait_until,
    waiting_count,
)
from tokenworks.meter.v1 import usage_pb2

INPUT, OUTPUT = usage_pb2.TOKEN_CLASS_INPUT, usage_pb2.TOKEN_CLASS_OUTPUT
DOCUMENTED = Path(__file__).resolve().parent.parent.parent / "docs/reference/metrics.md"


@pytest.fixture
def session(running_meter: RunningMeter) -> Session:
    """A session with one account."""
    session = Session(running_meter)
    session.create_account("acme")
    return session


def test_catalogue__is_what_is_served(running_meter: RunningMeter) -> None:
    """The page has the catalogue's metrics, with their meaning and kind, and no others."""
    page = read_http(running_meter, "/metrics")[1]
    shown = {
        line.split()[2]: line.split(maxsplit=3)[3]
        for line in page.splitlines()
        if line.startswith("# TYPE ") and not line.split()[2].endswith("_created")
    }
    catalogue = (*METER_CATALOGUE, *BILLING_CATALOGUE)
    assert shown == {entry.name: entry.kind for entry in catalogue}
    for entry in catalogue:
        assert f"# HELP {entry.name} {entry.meaning}" in page
        assert entry.name in DOCUMENTED.read_text("utf-8")


def test_standbys_missing__counts_those_that_do_not_follow(
    cluster: Cluster, tmp_path: Path
) -> None:
    """A server that waits for standbys says how many are away; what it needs to see is granted."""
    with cluster.database() as url, psycopg.connect(url, autocommit=True) as connection:
        connection.execute("GRANT pg_read_all_stats TO tokenworks_ingest")
        settings = {"durable_standbys": "east,west"}
        with running_meter_on(url, folder=tmp_path, settings=settings) as meter:
            assert read_metric(meter, "tokenworks_standbys_missing") == 2
        # A role is the whole cluster's.
        connection.execute("REVOKE pg_read_all_stats FROM tokenworks_ingest")


def test_tokens__by_tier_model_and_class(session: Session) -> None:
    """Tokens are counted by what they are, once each, when they are in usage."""
    session.record(
        event(tokens={INPUT: 5, OUTPUT: 7}),
        event(tier="free", model="m2", tokens={INPUT: 1}),
        event(tier="gold", tokens={INPUT: 1_000}),
    )
    session.counted()
    name, meter = "tokenworks_tokens_total", session.meter
    wait_until(lambda: read_metric(meter, name) == 13)
    assert read_metric(meter, name, tier="high", model="m", token_class="INPUT") == 5
    assert read_metric(meter, name, tier="high", model="m", token_class="OUTPUT") == 7
    assert read_metric(meter, name, tier="free", model="m2", token_class="INPUT") == 1


def test_events__by_outcome(session: Session) -> None:
    """Events of calls and streams are counted under what became of them."""
    again = event()
    session.record(again, again, event(tier="gold"))
    session.exchange(
        opening(), rows(1, event(), event("nobody")), rows(2, event()), rows(2, event())
    )
    name, meter = "tokenworks_events_total", session.meter
    assert read_metric(meter, name, outcome="RECORDED") == 3
    assert read_metric(meter, name, outcome="DUPLICATE") == 1
    assert read_metric(meter, name, outcome="TIER_UNKNOWN") == 1
    assert read_metric(meter, name, outcome="ACCOUNT_UNKNOWN") == 1
    assert read_metric(meter, name, outcome="BATCH_CHANGED") == 1


def test_calls_failed__by_reason(session: Session) -> None:
    """Calls and streams that end in an error are counted by its reason."""
    for act in (session.record, lambda: session.exchange(rows(1, event()))):
        with pytest.raises(grpc.RpcError):
            act()
    name, meter = "tokenworks_calls_failed_total", session.meter
    assert read_metric(meter, name, reason="ARGUMENT_INVALID") == 1
    assert read_metric(meter, name, reason="STREAM_NOT_OPENED") == 1


def test_latency__of_commits_and_answers(session: Session) -> None:
    """Each commit and each answer is one observation, by the form of the report."""
    session.record(event())
    session.record(event())
    session.exchange(opening(), rows(1, event()))
    meter = session.meter
    assert read_metric(meter, "tokenworks_ack_seconds_count", form="call") == 2
    assert read_metric(meter, "tokenworks_ack_seconds_count", form="stream") == 1
    assert read_metric(meter, "tokenworks_commit_seconds_count") == 3
    assert 0 < read_metric(meter, "tokenworks_commit_seconds_sum") < 60


def test_streams_open__while_they_are(session: Session) -> None:
    """The gauge follows the streams that are open."""
    name, meter = "tokenworks_streams_open", session.meter
    with talking(session) as first, talking(session) as second:
        for number, talk in enumerate((first, second)):
            talk.say(opening(f"p{number}"))
            talk.hear()
        assert read_metric(meter, name) == 2
    wait_until(lambda: read_metric(meter, name) == 0)


def test_buffer__what_waits_for_its_commit(session: Session) -> None:
    """The gauge rises while a commit waits, and falls when it is done."""
    name, meter = "tokenworks_buffer_bytes", session.meter
    with talking(session) as talk:
        with commits_held(meter.database_url):
            talk.say(opening(), rows(1, event()))
            talk.hear()
            wait_until(lambda: waiting_count(meter.database_url))
            assert read_metric(meter, name) > 0
        talk.hear()
        wait_until(lambda: read_metric(meter, name) == 0)


def test_quarantine__and_batches_missing(session: Session) -> None:
    """What waits for a person, and what producers passed over, shows within the watch's time."""
    meter = session.meter
    session.record(event(tier="gold"), event(tier="gold"))
    session.exchange(opening(first_sequence=4))
    wait_until(lambda: read_metric(meter, "tokenworks_quarantine_held") == 2)
    wait_until(lambda: read_metric(meter, "tokenworks_batches_missing") == 3)


def test_counting__lag_shows_and_goes(session: Session) -> None:
    """While counting is kept from its work the lag grows, and it ends when it may go on."""
    meter = session.meter
    lag, behind = "tokenworks_counting_lag_segments", "tokenworks_counting_behind_seconds"
    with counting_held(meter.database_url):
        session.record(event())
        session.record(event())
        wait_until(lambda: read_metric(meter, lag) == 2)
        wait_until(lambda: read_metric(meter, behind) > 0)
    wait_until(lambda: read_metric(meter, lag) == 0)
    wait_until(lambda: read_metric(meter, behind) == 0)
