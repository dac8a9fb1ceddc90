"""API keys on streams: judged at the door and at each message."""

from pathlib import Path

import grpc
import pytest

from meter.domain.credential import mint_key
from tests.running_meter import PEPPER, RunningMeter, running_meter_on
from tests.wire.session import Session, event, opening, rows
from tests.wire.talk import (
    failure_of,
    talking,
    wait_until,
)
from tokenworks.meter.v1 import (
    account_service_pb2,
    meter_service_pb2,
    usage_pb2,
)

INPUT = usage_pb2.TOKEN_CLASS_INPUT
BEAT = meter_service_pb2.StreamUsageRequest(heartbeat=meter_service_pb2.Heartbeat())
GRACE_SECONDS = 2
REVOKED = ("UNAUTHENTICATED", "API_KEY_REVOKED", False)


@pytest.fixture
def session(running_meter: RunningMeter) -> Session:
    """A session with one account."""
    session = Session(running_meter)
    session.create_account("acme")
    return session


def create_key(session: Session) -> account_service_pb2.CreateApiKeyResponse:
    """Create a key that may report for acme."""
    scope = account_service_pb2.Scope(role=account_service_pb2.ROLE_PRODUCER, account="acme")
    request = account_service_pb2.CreateApiKeyRequest(account="acme", scopes=[scope])
    response: account_service_pb2.CreateApiKeyResponse = session.call("CreateApiKey", request)
    return response


def revoke(session: Session, key: account_service_pb2.CreateApiKeyResponse) -> None:
    """End a key."""
    request = account_service_pb2.RevokeApiKeyRequest(key_id=key.key.key_id)
    session.call("RevokeApiKey", request)


def test_stream__key_revoked_in_mid_stream(session: Session) -> None:
    """After the revocation was answered the stream's next batch is refused and not recorded."""
    key = create_key(session)
    limited = Session(session.meter, api_key=key.secret)
    with talking(limited) as talk:
        talk.say(opening(), rows(1, event()))
        assert [talk.hear().WhichOneof("message") for _ in range(2)] == ["opened", "ack"]
        revoke(session, key)
        talk.say(rows(2, event()))
        assert failure_of(talk.hear) == REVOKED
    assert failure_of(lambda: limited.exchange(opening())) == REVOKED
    assert session.counted() == {("acme", "high", INPUT): 3}


def test_stream__key_whose_grace_ends_in_mid_stream(session: Session) -> None:
    """A rotated key ends by the clock alone: nothing changes in the registry at that moment."""
    key = create_key(session)
    limited = Session(session.meter, api_key=key.secret)
    with talking(limited) as talk:
        talk.say(opening("graced"), rows(1, event()))
        assert [talk.hear().WhichOneof("message") for _ in range(2)] == ["opened", "ack"]
        request = account_service_pb2.RotateApiKeyRequest(
            key_id=key.key.key_id, grace_seconds=GRACE_SECONDS
        )
        session.call("RotateApiKey", request)

        def go_on() -> None:
            while True:
                talk.say(BEAT)
                assert talk.hear().ack.sequence == 1

        assert failure_of(go_on) == REVOKED


def test_stream__key_revoked_through_another_server(session: Session, tmp_path: Path) -> None:
    """A revocation reaches the streams of every other server of the installation."""
    folder = tmp_path / "second"
    folder.mkdir()
    url = session.meter.database_url
    with running_meter_on(url, folder=folder, settings={"shard": "1"}) as second:
        key = create_key(session)
        limited = Session(second, api_key=key.secret)

        def is_known() -> bool:
            try:
                limited.exchange(opening())
            except grpc.RpcError:
                return False
            return True

        wait_until(is_known)
        with talking(limited) as talk:
            talk.say(opening())
            talk.hear()
            revoke(session, key)

            def beat_on() -> None:
                while True:
                    talk.say(BEAT)
                    talk.hear()

            assert failure_of(beat_on) == REVOKED


@pytest.mark.parametrize(
    ("authorization", "reason"),
    [
        (None, "API_KEY_MISSING"),
        ("", "API_KEY_MALFORMED"),
        ("Bearer", "API_KEY_MALFORMED"),
        ("Basic dXNlcjpwYXNz", "API_KEY_MALFORMED"),
        ("Bearer tw_short", "API_KEY_MALFORMED"),
        ("Bearer tw_" + "0" * 32 + "000001", "API_KEY_MALFORMED"),
        (f"Bearer {mint_key(bytes, pepper=PEPPER).text}", "API_KEY_UNKNOWN"),
    ],
)
def test_stream__key_is_judged_before_anything_is_read(
    session: Session, authorization: str | None, reason: str
) -> None:
    """A stream without a valid key ends with the reason, whatever it says."""
    other = Session(session.meter)
    metadata = () if authorization is None else (("authorization", authorization),)
    other.metadata = metadata  # type: ignore[assignment]
    found = failure_of(lambda: other.exchange(opening()))
    assert found == ("UNAUTHENTICATED", reason, False)
    assert failure_of(lambda: other.record(event())) == found
