"""Requests of which a better report comes late: counted by it, once, and shown with all others."""

import uuid
from typing import Any

import grpc
import psycopg
import pytest

from tests.meter.store.recording import ask_one
from tests.wire.apart import Apart
from tests.wire.correcting import correct
from tests.wire.session import reason_of
from tests.wire.talk import read_metric, wait_until
from tokenworks.meter.v1 import meter_service_pb2, outcome_pb2, usage_pb2

Observation = meter_service_pb2.Observation
INPUT, OUTPUT = usage_pb2.TOKEN_CLASS_INPUT, usage_pb2.TOKEN_CLASS_OUTPUT
PROXY, ASGI, SPAN = usage_pb2.SOURCE_PROXY, usage_pb2.SOURCE_ASGI, usage_pb2.SOURCE_SPAN
WAITING = "tokenworks_observations_waiting"
RECORDED, OBSERVED = outcome_pb2.OUTCOME_RECORDED, outcome_pb2.OUTCOME_OBSERVED


class Requests:
    """Reports requests of a test's own account, and looks at what is known of them."""

    def __init__(self, session: Apart) -> None:
        """Take the session."""
        self._session = session

    def report(self, source: int, request_id: str, *, output: int) -> int:
        """Report a request of 3 input tokens and return the outcome."""
        event = self._session.event(
            event_id=str(uuid.uuid4()),
            request_id=request_id,
            tokens={INPUT: 3, OUTPUT: output},
        )
        request = meter_service_pb2.RecordUsageRequest(events=[event])
        request.source = source  # type: ignore[assignment]
        (outcome,) = self._session.call("RecordUsage", request).outcomes
        return int(outcome)

    def listed(self, request_id: str, **changes: Any) -> list[Observation]:  # noqa: ANN401
        """Return what was reported of a request."""
        request = meter_service_pb2.ListObservationsRequest(
            request_id=request_id,
            **changes,
        )
        return list(self._session.call("ListObservations", request).observations)

    def counted_by(self, request_id: str) -> list[int]:
        """Return the sources of the reports that are counted."""
        return [it.source for it in self.listed(request_id) if it.is_counted]

    def outputs(self) -> int:
        """Return how many output tokens are counted."""
        return self._session.counted().get(("acme", "high", OUTPUT), 0)


@pytest.fixture
def requests(apart: Apart) -> Requests:
    """Requests of one account."""
    return Requests(apart)


def test_observation__better_one_takes_the_place_of_the_counted(
    requests: Requests, apart: Apart
) -> None:
    """A span came first and the gateway knows better: its counts are billed, with a correction."""
    name = str(uuid.uuid4())
    assert requests.report(SPAN, name, output=5) == RECORDED
    assert requests.report(PROXY, name, output=7) == OBSERVED
    wait_until(lambda: requests.counted_by(name) == [PROXY])
    assert requests.outputs() == 7
    first, second = requests.listed(name)
    assert (first.source, first.difference_count) == (SPAN, -2)
    assert (second.source, second.difference_count) == (PROXY, 0)
    assert [it.count for it in first.event.tokens] == [3, 5]
    (correction,) = apart.corrections()
    assert correction.reason == "report of PROXY takes the place of that of SPAN"


def test_observation__worse_one_is_evidence(requests: Requests, apart: Apart) -> None:
    """What an engine says after its gateway changes nothing, and is there to be compared."""
    name = str(uuid.uuid4())
    requests.report(PROXY, name, output=5)
    requests.report(SPAN, name, output=9)
    first, second = requests.listed(name)
    assert (first.source, first.is_counted) == (PROXY, True)
    assert (second.source, second.is_counted, second.difference_count) == (SPAN, False, 4)
    assert requests.outputs() == 5
    assert not apart.corrections()


@pytest.mark.parametrize("is_void", [True, False])
def test_observation__a_person_wins(requests: Requests, apart: Apart, *, is_void: bool) -> None:
    """What a person has voided or replaced stays as it is, however good a report comes."""
    name = str(uuid.uuid4())
    requests.report(SPAN, name, output=5)
    (first,) = requests.listed(name)
    instead = {} if is_void else {"replacement": apart.instead(tokens={OUTPUT: 6})}
    correct(apart, event_id=first.event.event_id, reason="a test", **instead)
    assert requests.report(PROXY, name, output=7) == OBSERVED
    waiting = "SELECT count(*) FROM observations WHERE state = 1"
    wait_until(lambda: ask_one(apart.meter.database_url, waiting) == 0)
    assert requests.outputs() == (0 if is_void else 6)
    assert not requests.counted_by(name)
    assert len(apart.corrections()) == 1


def test_observation__of_a_source_that_only_a_newer_server_knows(
    requests: Requests, apart: Apart
) -> None:
    """It waits for that server, is seen to wait, and holds up nobody."""
    old, new = str(uuid.uuid4()), str(uuid.uuid4())
    requests.report(PROXY, old, output=5)
    requests.report(SPAN, old, output=5)
    with psycopg.connect(apart.meter.database_url, autocommit=True) as connection:
        unknown = "source = 99, report_rank = 63, state = 1 WHERE event_key ="
        newest = "(SELECT event_key FROM observations ORDER BY observation_id DESC LIMIT 1)"
        connection.execute(f"UPDATE observations SET {unknown} {newest}")
        wait_until(lambda: read_metric(apart.meter, WAITING) == 1)
        assert [it.source for it in requests.listed(old)] == [PROXY, 99]
        requests.report(SPAN, new, output=5)
        requests.report(PROXY, new, output=7)
        wait_until(lambda: requests.counted_by(new) == [PROXY])
        connection.execute("UPDATE observations SET source = 6, state = 2 WHERE source = 99")
    wait_until(lambda: read_metric(apart.meter, WAITING) == 0)


def test_list_observations__of_a_request_whose_claim_is_forgotten(
    requests: Requests, apart: Apart
) -> None:
    """The journal has the event, however old it is; who reported it is not known any more."""
    name = str(uuid.uuid4())
    requests.report(SPAN, name, output=5)
    with psycopg.connect(apart.meter.database_url, autocommit=True) as connection:
        newest = "(SELECT event_key FROM event_claims ORDER BY claim_time DESC LIMIT 1)"
        connection.execute(f"DELETE FROM event_claims WHERE event_key = {newest}")
    (found,) = requests.listed(name)
    assert (found.source, found.is_counted, found.event.request_id) == (0, True, name)
    (within,) = requests.listed(name, start_time=found.event.end_time)
    assert within == found


def test_list_observations__refuses_what_is_wrong(requests: Requests) -> None:
    """A request nobody reported is not found; ids and times are checked."""
    for account in ("", "x"):
        with pytest.raises(grpc.RpcError) as caught:
            requests.listed(str(uuid.uuid4()), account=account)
        assert reason_of(caught.value)[1] == "EVENT_NOT_FOUND"
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("", {}),
        ("r", {"attempt": -1}),
        ("r", {"account": "\n"}),
    ]
    for name, changes in wrong:
        with pytest.raises(grpc.RpcError) as caught:
            requests.listed(name, **changes)
        assert reason_of(caught.value)[1] == "ARGUMENT_INVALID"
