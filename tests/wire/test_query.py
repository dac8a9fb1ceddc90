"""Questions about usage over a real server: every split, every edge, what a key may see."""

import time
from collections.abc import Iterator
from typing import Any

import grpc
import psycopg
import pytest

from tests.postgres import Cluster
from tests.running_meter import RunningMeter, running_meter_on
from tests.wire.session import Session, event, opening, reason_of, rows
from tests.wire.talk import counting_held, info_of
from tokenworks.meter.v1 import account_service_pb2, meter_service_pb2, usage_pb2

INPUT, OUTPUT = usage_pb2.TOKEN_CLASS_INPUT, usage_pb2.TOKEN_CLASS_OUTPUT
EDGE_MS = 900_000
DAY_MS = 86_400_000
# A day that lies behind us, so that no event is in the future.
NOON_MS = (time.time_ns() // 10**6 // DAY_MS - 2) * DAY_MS + DAY_MS // 2


@pytest.fixture(scope="module")
def filled(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """A session on a meter with some usage, which all who only ask share."""
    folder = tmp_path_factory.mktemp("filled")
    with cluster.database() as url, running_meter_on(url, folder=folder) as meter:
        session = Session(meter)
        create_accounts(session)
        fill(session)
        yield session


@pytest.fixture
def session(running_meter: RunningMeter) -> Session:
    """A session on a meter without usage."""
    session = Session(running_meter)
    create_accounts(session)
    return session


def create_accounts(session: Session) -> None:
    """Make a company, a team in it, and another company."""
    session.create_account("acme")
    session.create_account("team", parent="acme")
    session.create_account("other")


def ask(
    session: Session,
    *groups: str | int,
    start_ms: int = NOON_MS - DAY_MS,
    end_ms: int = NOON_MS + DAY_MS,
    **changes: Any,  # noqa: ANN401
) -> list[meter_service_pb2.UsageRow]:
    """Return a query's rows."""
    numbers: list[Any] = [
        group if isinstance(group, int) else meter_service_pb2.GroupBy.Value(f"GROUP_BY_{group}")
        for group in groups
    ]
    request = meter_service_pb2.QueryUsageRequest(group_by=numbers, **changes)
    request.start_time.FromMilliseconds(start_ms)
    request.end_time.FromMilliseconds(end_ms)
    return list(session.call("QueryUsage", request).rows)


def input_of(row: meter_service_pb2.UsageRow) -> int:
    """Return the input tokens of a row."""
    return sum(item.count for item in row.tokens if item.token_class == INPUT)


def total(
    session: Session,
    *,
    start_ms: int = NOON_MS - DAY_MS,
    end_ms: int = NOON_MS + DAY_MS,
    **filters: Any,  # noqa: ANN401
) -> int:
    """Return the input tokens of all rows."""
    found = ask(session, "ACCOUNT", start_ms=start_ms, end_ms=end_ms, **filters)
    return sum(input_of(row) for row in found)


def fill(session: Session) -> None:
    """Record events that differ in one thing each; each has its own power of ten."""
    differences: list[dict[str, Any]] = [
        {},
        {"model": "m2"},
        {"served_model": "m-2025"},
        {"tier": "free"},
        {"mode": usage_pb2.MODE_BATCH},
        {"region": "eu"},
        {"account": "team"},
        {"end_ms": NOON_MS + EDGE_MS},
        {"end_ms": NOON_MS - DAY_MS // 2 - 1},
    ]
    outcomes = session.record(
        *(
            event(
                fields.pop("account", "acme"),
                **{"end_ms": NOON_MS, "tokens": {INPUT: 10**place}, **fields},
            )
            for place, fields in enumerate(dict(it) for it in differences)
        )
    )
    assert set(outcomes) == {1}
    session.counted()


@pytest.mark.parametrize(
    ("group", "field", "wanted"),
    [
        ("ACCOUNT", "account", {"acme": 110_111_111, "team": 1_000_000}),
        ("ACCOUNT", "handle", {"acme": 110_111_111, "team": 1_000_000}),
        ("MODEL", "model", {"m": 111_111_101, "m2": 10}),
        ("SERVED_MODEL", "served_model", {"m": 111_111_001, "m2": 10, "m-2025": 100}),
        ("TIER", "tier", {"high": 111_110_111, "free": 1_000}),
        ("MODE", "mode", {1: 111_101_111, 2: 10_000}),
        ("REGION", "region", {"": 111_011_111, "eu": 100_000}),
        # A prompt's total decides: a hundred thousand lies below 128k, a million at the top.
        ("BAND", "band", {"<32k": 11_111, "<128k": 100_000, "≥1M": 111_000_000}),
        (
            "INTERVAL",
            "start_time",
            {
                NOON_MS: 1_111_111,
                NOON_MS + EDGE_MS: 10_000_000,
                NOON_MS - DAY_MS // 2 - EDGE_MS: 100_000_000,
            },
        ),
        (
            "DAY",
            "start_time",
            {NOON_MS - DAY_MS // 2: 11_111_111, NOON_MS - DAY_MS * 3 // 2: 100_000_000},
        ),
    ],
)
def test_query__by_every_group(
    filled: Session, group: str, field: str, wanted: dict[Any, int]
) -> None:
    """Each split shows its keys with their sums, in the order of the keys, and no other fields."""
    found = ask(filled, group)
    keys = [getattr(row, field) for row in found]
    if field == "start_time":
        keys = [key.ToMilliseconds() for key in keys]
    sums = dict(zip(keys, map(input_of, found), strict=True))
    assert sums == wanted
    assert keys == (list(wanted) if group == "BAND" else sorted(keys))
    assert sum(sums.values()) == 111_111_111
    others = {"account", "model", "served_model", "tier", "region", "band", "mode", "start_time"}
    shown = {it.name for row in found for it, _ in row.ListFields()} & others
    assert shown <= {field, "account" if group == "ACCOUNT" else field}


def test_query__by_several_groups(filled: Session) -> None:
    """Rows are split by all that is asked for, in the order in which it is asked for."""
    found = [(row.tier, row.account) for row in ask(filled, "TIER", "ACCOUNT")]
    assert found == [("free", "acme"), ("high", "acme"), ("high", "team")]


def test_query__without_group_is_one_row(session: Session) -> None:
    """A question without split has one row, also where nothing was used."""
    (empty,) = ask(session)
    assert (list(empty.tokens), empty.request_count) == ([], 0)
    session.record(
        event(end_ms=NOON_MS, tokens={INPUT: 5, OUTPUT: 7}),
        event(end_ms=NOON_MS, tokens={INPUT: 5, OUTPUT: 7}, finish=usage_pb2.FINISH_FAILED),
        event(end_ms=NOON_MS, tokens={INPUT: 1}, quality=usage_pb2.QUALITY_ESTIMATED),
    )
    session.counted()
    (row,) = ask(session)
    assert {item.token_class: item.count for item in row.tokens} == {INPUT: 11, OUTPUT: 14}
    assert (row.request_count, row.unfinished_count) == (3, 1)
    assert (row.delivered_output_count, row.estimated_count) == (7, 1)


def test_query__filters(filled: Session) -> None:
    """A model or tier that is named is the only one in the sums."""
    cases: list[tuple[dict[str, Any], int]] = [
        ({"model": "m2"}, 10),
        ({"model": "m-2025"}, 0),
        ({"tier": "free"}, 1_000),
        ({"tier": "high", "model": "m2"}, 10),
        ({"tier": "free", "model": "m2"}, 0),
        ({"account": "team"}, 1_000_000),
        ({"account": "team", "tier": "free"}, 0),
    ]
    for filters, wanted in cases:
        assert total(filled, **filters) == wanted, filters


def test_query__time_is_half_open(filled: Session) -> None:
    """Usage on the begin belongs to the span, usage on the end does not."""
    spans = [(0, EDGE_MS, 1_111_111), (0, 2 * EDGE_MS, 11_111_111), (EDGE_MS, 2 * EDGE_MS, 10**7)]
    for start, end, wanted in spans:
        assert total(filled, start_ms=NOON_MS + start, end_ms=NOON_MS + end) == wanted


def move(session: Session, account: str, *, parent: str, start_ms: int) -> None:
    """Date a move back, which only a test may: the past stands still for everybody else."""
    with psycopg.connect(session.meter.database_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO account_parents VALUES (%s, to_timestamp(%s), %s)",
            (account, start_ms / 1000, parent),
        )


def test_query__usage_stays_with_the_parent_that_it_had(session: Session) -> None:
    """After a move the usage before it is the old parent's, and what comes later the new one's."""
    with psycopg.connect(session.meter.database_url, autocommit=True) as connection:
        connection.execute(
            "UPDATE account_parents SET start_time = to_timestamp(%s)", (NOON_MS / 1000 - 86_400,)
        )
    move(session, "team", parent="other", start_ms=NOON_MS)
    ends = [NOON_MS - EDGE_MS, NOON_MS - 1, NOON_MS, NOON_MS + EDGE_MS]
    session.record(
        *(event("team", end_ms=end, tokens={INPUT: 10**it}) for it, end in enumerate(ends))
    )
    session.counted()
    sums = {account: total(session, account=account) for account in ("acme", "other", "team", "")}
    assert sums == {"acme": 11, "other": 1_100, "team": 1_111, "": 1_111}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"start_ms": NOON_MS + 1}, "start_time"),
        ({"end_ms": NOON_MS + EDGE_MS - 1}, "end_time"),
        ({"end_ms": NOON_MS - DAY_MS}, "end_time"),
        ({"end_ms": NOON_MS - 2 * DAY_MS}, "end_time"),
        ({"start_ms": -EDGE_MS}, "start_time"),
        ({"end_ms": 253_402_300_799_000}, "end_time"),
    ],
)
def test_query__span_off_the_edges_is_refused(
    filled: Session, changes: dict[str, int], field: str
) -> None:
    """A span that is not on 15-minute edges, empty or beyond the calendar names its field."""
    with pytest.raises(grpc.RpcError) as failure:
        ask(filled, **changes)
    assert reason_of(failure.value)[1] == "ARGUMENT_INVALID"
    assert info_of(failure.value).metadata["field"] == field


def test_query__absent_span_is_refused(filled: Session) -> None:
    """A question without a span of time is none."""
    with pytest.raises(grpc.RpcError) as failure:
        filled.call("QueryUsage", meter_service_pb2.QueryUsageRequest())
    assert reason_of(failure.value)[1] == "ARGUMENT_INVALID"


@pytest.mark.parametrize("groups", [[0], [10], [1, 1], [8, 9]])
def test_query__groups_that_cannot_be(filled: Session, groups: list[int]) -> None:
    """An unknown split, the same one twice, or day and interval together are refused."""
    with pytest.raises(grpc.RpcError) as failure:
        ask(filled, *groups)
    assert reason_of(failure.value)[1] == "ARGUMENT_INVALID"
    assert info_of(failure.value).metadata["field"] == "group_by"


def test_query__key_sees_its_subtree(filled: Session) -> None:
    """A key that may read a subtree sees it and nothing else, not even that others exist."""
    scope = account_service_pb2.Scope(role=account_service_pb2.ROLE_READER, account="team")
    key = filled.call(
        "CreateApiKey", account_service_pb2.CreateApiKeyRequest(account="acme", scopes=[scope])
    )
    limited = Session(filled.meter, api_key=key.secret)
    assert total(limited, account="team") == 1_000_000
    for account in ("acme", "other", "nobody", ""):
        with pytest.raises(grpc.RpcError) as failure:
            ask(limited, account=account)
        assert reason_of(failure.value)[:2] == (
            grpc.StatusCode.PERMISSION_DENIED,
            "SCOPE_MISSING",
        )
    with pytest.raises(grpc.RpcError) as failure:
        limited.record(event("team"))
    assert reason_of(failure.value)[1] == "SCOPE_MISSING"


def test_query__unknown_account(filled: Session) -> None:
    """Whoever may read everything is told that an account does not exist."""
    with pytest.raises(grpc.RpcError) as failure:
        ask(filled, account="nobody")
    assert reason_of(failure.value)[:2] == (grpc.StatusCode.NOT_FOUND, "ACCOUNT_NOT_FOUND")


def test_query__counted_until_tells_what_is_missing(session: Session) -> None:
    """While counting is behind, the answer says until when its sums are complete."""
    request = meter_service_pb2.QueryUsageRequest()
    request.start_time.FromMilliseconds(NOON_MS)
    request.end_time.FromMilliseconds(NOON_MS + EDGE_MS)
    with counting_held(session.meter.database_url):
        session.record(event(end_ms=NOON_MS))
        session.exchange(opening(), rows(1, event(end_ms=NOON_MS)))
        acked_ns = time.time_ns()
        answer = session.call("QueryUsage", request)
        assert answer.counted_until.ToNanoseconds() < acked_ns
        assert [input_of(row) for row in answer.rows] == [0]
    session.counted()
    answer = session.call("QueryUsage", request)
    assert answer.counted_until.ToNanoseconds() > acked_ns
    assert [input_of(row) for row in answer.rows] == [6]
