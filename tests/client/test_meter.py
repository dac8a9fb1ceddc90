"""`Meter` over a real connection: what arrives, what is counted, what is survived."""

from threading import Barrier, Thread
from types import SimpleNamespace
from typing import Any, Final

import grpc
import pytest

from tests.client.conftest import MakeClient, wait_for_state
from tests.client.fake_meter import API_KEY, WAIT_SECONDS, FakeMeter, Refusal
from tokenworks.client import Meter, State, Statistics, TokenClass, reporter
from tokenworks.client.sender import Sender


class Hostile:
    """An object whose own code fails however it is looked at."""

    def __getattr__(self, name: str) -> object:
        raise LookupError(name)


def test_record__arrives_with_what_was_said(fake_meter: FakeMeter, make_client: MakeClient) -> None:
    """An event reaches the meter with its own dimensions, and the client's where it has none."""
    client = make_client(account="acme", model="m", tier="high", pool="p7")
    assert client.record(tier="low", input=10, cache_read=3, output=4, end_time=1000.5)
    assert client.flush(WAIT_SECONDS)
    (event,) = fake_meter.events
    assert (event["account"], event["model"], event["tier"]) == ("acme", "m", "low")
    assert (event["tokens"], event["end_ms"]) == ({1: 10, 2: 3, 7: 4}, 1_000_500)
    assert client.statistics == Statistics(recorded=1, acknowledged=1, state=State.STREAMING)


def test_record__mapping_is_taken_as_it_was(fake_meter: FakeMeter, make_client: MakeClient) -> None:
    """A mapping that changes after the call does not change what is reported."""
    client = make_client()
    tokens = {TokenClass.AUDIO_INPUT: 5}
    client.record(tokens=tokens)
    tokens[TokenClass.AUDIO_INPUT] = 6
    assert client.flush(WAIT_SECONDS)
    assert fake_meter.events[0]["tokens"] == {20: 5}


ABSURD: Final[dict[str, tuple[tuple[object, ...], dict[str, object]]]] = {
    "nothing": ((), {}),
    "an argument by position": (("acme",), {}),
    "arguments by position, and one of them by name": (("x", "acme"), {"account": "acme"}),
    "an argument called self": ((), {"self": 1}),
    "an argument that does not exist": ((), {"prompt_tokens": 5}),
    "a mapping that is none": ((), {"tokens": 5}),
    "a hostile mapping": ((), {"tokens": Hostile()}),
    "hostile values": ((), dict.fromkeys(("account", "input", "end_time", "event_id"), Hostile())),
    "values of every wrong kind": ((), {"account": [], "input": {}, "finish": "x", "mode": ()}),
    "endless values": ((), {"account": "x" * 10**7, "input": 10**1000, "duration_ms": 1e308}),
}


@pytest.mark.parametrize("case", ABSURD)
def test_record__never_raises(fake_meter: FakeMeter, make_client: MakeClient, case: str) -> None:
    """Whatever `record` is given, it answers, and the next event arrives."""
    positional, named = ABSURD[case]
    client = make_client()
    taken = client.record(*positional, **named)  # type: ignore[arg-type]
    assert client.record(account="next")
    assert client.flush(WAIT_SECONDS)
    assert "next" in [event["account"] for event in fake_meter.events]
    statistics = client.statistics
    assert statistics.invalid + statistics.acknowledged == 2
    assert statistics.recorded == 1 + taken


GOOD: Final = {"prompt_tokens": 5, "completion_tokens": 1}
UNREADABLE: Final[dict[str, tuple[object, dict[str, object]]]] = {
    "a hostile object": (Hostile(), {"profile": "openai"}),
    "a total that is missing": ({"prompt_tokens": 5}, {"profile": "openai"}),
    "an unknown profile": (GOOD, {"profile": "nobody"}),
    "a profile that is no text": (GOOD, {"profile": []}),
    "no profile": (GOOD, {}),
    "a count beside the object": (GOOD, {"profile": "openai", "input": 5}),
    "an argument that does not exist": (GOOD, {"profile": "openai", "bogus": 5}),
    "no object": (None, {"profile": "anthropic"}),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_record_usage__never_raises(make_client: MakeClient, case: str) -> None:
    """A usage object that cannot be read is counted as invalid, and nothing of it is reported."""
    usage, details = UNREADABLE[case]
    client = make_client()
    assert client.record_usage(usage, **details) is False  # type: ignore[arg-type]
    assert client.flush(WAIT_SECONDS)
    assert (client.statistics.invalid, client.statistics.recorded) == (1, 0)


def test_record_usage__reports_classes_and_totals(
    fake_meter: FakeMeter, make_client: MakeClient
) -> None:
    """A provider's object arrives as disjoint classes, its totals as checksums."""
    client = make_client()
    usage = SimpleNamespace(
        prompt_tokens=10,
        completion_tokens=5,
        prompt_tokens_details=SimpleNamespace(cached_tokens=4, audio_tokens=1),
    )
    assert client.record_usage(usage, profile="openai", account="acme", attempt=2)
    assert client.flush(WAIT_SECONDS)
    (event,) = fake_meter.events
    assert event["tokens"] == {1: 5, 2: 4, 20: 1, 7: 5}
    assert (event["reported_input_count"], event["reported_output_count"]) == (10, 5)
    assert (event["account"], event["attempt"]) == ("acme", 2)


@pytest.mark.parametrize("source", [None, "proxy"])
def test_record__usage_object(
    fake_meter: FakeMeter, make_client: MakeClient, source: str | None
) -> None:
    """A client with a source sends it beside the counts, whose event it never costs."""
    client = make_client(source=source)
    usage = {"prompt_tokens": 10, "completion_tokens": 5}
    for said in (usage, Hostile(), "a text"):
        assert client.record(input=10, output=5, usage=said, profile="openai", request_id="r")
    assert client.flush(WAIT_SECONDS)
    first, *others = fake_meter.events
    assert first.get("usage") == (source and {"convention": "openai", **usage})
    assert all("usage" not in event and event["tokens"] == {1: 10, 7: 5} for event in others)


def test_record__threads_lose_nothing(fake_meter: FakeMeter, make_client: MakeClient) -> None:
    """Events of many threads all arrive, each once, while batches are sent."""
    client = make_client()
    thread_count, each = 8, 5_000
    start = Barrier(thread_count)

    def report(number: int) -> None:
        start.wait()
        for i in range(each):
            client.record(account=f"t{number}", input=i + 1)

    threads = [Thread(target=report, args=(number,)) for number in range(thread_count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client.flush(WAIT_SECONDS)
    arrived = [(event["account"], event["tokens"][1]) for event in fake_meter.events]  # type: ignore[index]
    assert sorted(arrived) == sorted(
        (f"t{number}", i + 1) for number in range(thread_count) for i in range(each)
    )
    assert client.statistics.acknowledged == thread_count * each


def test_record__full_buffer_drops_the_newest(
    fake_meter: FakeMeter, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Beyond its bound the buffer keeps what it has; the rest is counted, logged, and no worse."""
    fake_meter.set(refusal=Refusal(code=grpc.StatusCode.UNAVAILABLE))
    client = make_client(buffer_events_max=100)
    answers = [client.record(input=i + 1) for i in range(150)]
    assert answers == [True] * 100 + [False] * 50
    assert client.statistics.dropped == 50
    fake_meter.set(refusal=None)
    assert client.flush(WAIT_SECONDS)
    assert [event["tokens"] for event in fake_meter.events] == [{1: i + 1} for i in range(100)]
    assert client.record(input=1), "there is room again"
    assert "events_dropped count=50 total=50" in caplog.text


def test_record__drops_are_logged_at_the_end_too(
    fake_meter: FakeMeter, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    """What was dropped since the last line in the log is said when the client closes."""
    fake_meter.set(refusal=Refusal(code=grpc.StatusCode.UNAVAILABLE))
    client = make_client(buffer_events_max=1)
    client.record()
    client.record()
    wait_for_state(client, State.WAITING)
    assert client.flush(0.05) is False
    client.record()
    client.close(0)
    assert "events_dropped count=1 total=1" in caplog.text
    assert "events_dropped count=1 total=2" in caplog.text


def test_record__full_buffer_counts_what_is_sent_but_not_durable(
    fake_meter: FakeMeter, make_client: MakeClient
) -> None:
    """What is under way takes its room until it is durable."""
    fake_meter.set(acks_held=True)
    client = make_client(buffer_events_max=10)
    for _ in range(10):
        client.record()
    assert fake_meter.wait_for_events(10)
    assert client.record() is False
    fake_meter.set(acks_held=False)
    assert client.flush(WAIT_SECONDS)
    assert client.record()


def test_record__invalid_kind_is_logged_once(
    make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault that every event has fills no log."""
    client = make_client()
    for _ in range(3):
        client.record(input="x")  # type: ignore[arg-type]
        client.record(bogus=1)  # type: ignore[arg-type]
        assert client.flush(WAIT_SECONDS)
    assert client.statistics.invalid == 6
    assert caplog.text.count("kind=whole_number_expected") == 1
    assert caplog.text.count("kind=unknown_argument") == 1


def test_record__nothing_but_invalid_is_logged_too(
    make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    """A client that is only ever called wrongly says so."""
    client = make_client()
    assert client.record(bogus=1) is False  # type: ignore[arg-type]
    assert client.flush(WAIT_SECONDS)
    assert client.close(WAIT_SECONDS)
    assert "kind=unknown_argument count=1" in caplog.text


def test_record__first_event_starts_the_thread(
    fake_meter: FakeMeter, make_client: MakeClient
) -> None:
    """A client that was never used opens nothing, and closes at once."""
    client = make_client()
    assert client.flush(0)
    assert client.statistics == Statistics(state=State.IDLE)
    assert client.close(0)
    assert client.statistics.state is State.CLOSED
    assert fake_meter.call_count == 0


def test_record__without_a_thread_tries_again_after_a_while(
    fake_meter: FakeMeter,
    make_client: MakeClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Where no thread can be started events are dropped, the log is not flooded, and it heals."""
    now = 0.0
    monkeypatch.setattr(reporter, "monotonic", lambda: now)
    client = make_client()
    with monkeypatch.context() as patch:
        patch.setattr(Sender, "start", _fail_to_start)
        assert not any(client.record(input=1) for _ in range(100))
    assert caplog.text.count("sender_not_started") == 1
    assert client.statistics.dropped == 100
    now = 60.0
    assert client.record(input=2)
    assert client.flush(WAIT_SECONDS)
    assert len(fake_meter.events) == 1


def _fail_to_start(_: Sender) -> None:
    raise RuntimeError("can't start new thread")


def test_flush__waits_for_durable(fake_meter: FakeMeter, make_client: MakeClient) -> None:
    """Recorded is not enough: `flush` is True only once the meter calls it durable."""
    fake_meter.set(durable_lag=1)
    client = make_client()
    client.record()
    assert fake_meter.wait_for_events(1)
    assert client.flush(0.05) is False
    fake_meter.set(durable_lag=0)
    assert client.flush(WAIT_SECONDS)
    assert fake_meter.heartbeat_count >= 1, "a heartbeat asked how things stand"


def test_flush__deadline_ends_the_wait(fake_meter: FakeMeter, make_client: MakeClient) -> None:
    """A meter that does not answer cannot hold the caller beyond its deadline; nothing is lost."""
    fake_meter.set(acks_held=True)
    client = make_client()
    client.record()
    assert client.flush(0.05) is False
    fake_meter.set(acks_held=False)
    assert client.flush(WAIT_SECONDS)


def test_close__flushes_and_refuses_what_comes_after(
    fake_meter: FakeMeter, make_client: MakeClient
) -> None:
    """Closing sends what is held; an event that comes later is lost, and counted."""
    client = make_client()
    client.record(account="before")
    assert client.close(WAIT_SECONDS)
    assert client.record(account="after") is False
    assert client.close(0), "closing again is harmless"
    assert [event["account"] for event in fake_meter.events] == ["before"]
    expected = Statistics(recorded=1, acknowledged=1, dropped=1, state=State.CLOSED)
    assert client.statistics == expected


def test_close__deadline_counts_what_is_lost(
    fake_meter: FakeMeter, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    """What is not durable at the deadline is lost, said, and counted."""
    fake_meter.set(refusal=Refusal(code=grpc.StatusCode.UNAVAILABLE))
    client = make_client()
    for _ in range(3):
        client.record()
    assert client.close(0.05) is False
    assert client.statistics.dropped == 3
    assert client.statistics.held == 0
    assert "events_lost count=3" in caplog.text


def test_exit__closes(fake_meter: FakeMeter) -> None:
    """Leaving the block sends what was recorded."""
    with Meter(fake_meter.target, api_key=API_KEY, producer="p") as client:
        client.record()
    assert len(fake_meter.events) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        {"producer": ""},
        {"producer": "a b"},
        {"producer": "x" * 65},
        {"api_key": ""},
        {"api_key": "a\nb"},
        {"api_key": "ключ"},
        {"buffer_events_max": 0},
        {"flush_interval_seconds": 0},
        {"source": "span"},
        {"flush_interval_seconds": 61},
        {"account": "x" * 513},
        {"region": "\ud800"},
        {"mode": 3},
    ],
)
def test_meter__refuses_bad_arguments(arguments: dict[str, Any]) -> None:
    """What is wrong in the set-up is said at once, not when the first event comes."""
    with pytest.raises(ValueError, match=r".+"):
        Meter(**({"api_key": "k"} | arguments))


def test_meter__default_producer_is_stable_and_legal() -> None:
    """Without a name the producer is called after the host and the program, each time the same."""
    names = {Meter(api_key="k")._reporter._name for _ in range(2)}  # noqa: SLF001 - seen on the wire only
    assert len(names) == 1
    assert 1 <= len(names.pop()) <= 64
