"""Writes down what the tests saw of a real server, so that `tests/test_evidence.py` can judge it.

Seen are the calls over channels that test code opened by gRPC's own functions, the metrics
that a test read by `urllib.request.urlopen`, and those of each meter that a fixture ran, when its
test is done. Where several processes share the tests, each hands what it saw to the one that
started them, and that one judges when all are done.
"""

import contextlib
import re
import sys
import urllib.request
from collections.abc import Callable, Collection, Generator, Iterator
from dataclasses import asdict, dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from prometheus_client.parser import text_string_to_metric_families
from xdist import is_xdist_controller, is_xdist_worker
from xdist.workermanage import WorkerController

JUDGE = "test_evidence.py"
_OUTCOME = "tokenworks.meter.v1.Outcome"
# What ends the name at the begin of a sample's line; comments begin with another one.
_NAME = re.compile(r"[{ ]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Names of what was seen in this run: `/package.Service/Rpc`, reasons, outcomes, metrics."""

    rpcs: set[str] = field(default_factory=set)
    reasons: set[str] = field(default_factory=set)
    outcomes: set[str] = field(default_factory=set)
    metrics: set[str] = field(default_factory=set)


EVIDENCE = pytest.StashKey[Evidence]()


def pytest_configure(config: pytest.Config) -> None:
    """Begin with nothing, and listen to the channels that tests open."""
    evidence = Evidence()
    config.stash[EVIDENCE] = evidence
    patch = pytest.MonkeyPatch()
    config.add_cleanup(patch.undo)
    for name in ("insecure_channel", "secure_channel"):
        patch.setattr(grpc, name, _listening(getattr(grpc, name), evidence=evidence))
    patch.setattr(urllib.request, "urlopen", _reading(urllib.request.urlopen, evidence=evidence))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> None:
    """The judge comes last, and only when all others came before."""
    judges = [item for item in items if item.path.name == JUDGE]
    items[:] = [item for item in items if item.path.name != JUDGE]
    if is_xdist_worker(session):
        return
    if _is_complete(config):
        items.extend(judges)
    else:
        config.hook.pytest_deselected(items=judges)


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    """Judge here, after the processes that shared the tests."""
    done = yield
    if is_xdist_controller(session) and _is_complete(session.config):
        _judge(session)
    return done


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand over what this process saw, if another one judges."""
    if is_xdist_worker(session):
        evidence = session.config.stash[EVIDENCE]
        seen = {name: list(values) for name, values in asdict(evidence).items()}
        session.config.workeroutput["evidence"] = seen  # type: ignore[attr-defined]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: WorkerController, error: object) -> None:
    """Take what a process saw; one that died saw nothing."""
    del error
    seen = getattr(node, "workeroutput", {}).get("evidence", {})
    evidence = node.config.stash[EVIDENCE]
    for name, values in seen.items():
        getattr(evidence, name).update(values)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Read the metrics of the meters that the test ran, while they still run."""
    for value in getattr(item, "funcargs", {}).values():
        if type(value).__name__ == "RunningMeter":
            # One that speaks TLS is read by its own tests.
            with contextlib.suppress(OSError, HTTPException):
                _read_metrics(value.http)


def _is_complete(config: pytest.Config) -> bool:
    """Whether this run is all of the tests that need nothing heavy."""
    everything = {Path(argument).resolve() for argument in config.args} == set(_roots(config))
    marked = config.getoption("markexpr") in {"", "not stacks"}
    chosen = config.getoption("keyword") or config.getoption("lf", default=False)
    return everything and marked and not chosen


def _roots(config: pytest.Config) -> list[Path]:
    """The folders that hold all tests."""
    return [(config.rootpath / folder).resolve() for folder in config.getini("testpaths")]


def _judge(session: pytest.Session) -> None:
    """Run the judge's tests in this process, which collected none of its own."""
    others = session.testscollected
    judges = [str(root / JUDGE) for root in _roots(session.config) if (root / JUDGE).exists()]
    items = session.perform_collect(judges)
    session.testscollected = others + len(items)
    for item, following in zip(items, [*items[1:], None], strict=True):
        item.ihook.pytest_runtest_protocol(item=item, nextitem=following)


def _read_metrics(address: str) -> None:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
        answer.read()


def _reading(original: Callable[..., Any], *, evidence: Evidence) -> Callable[..., Any]:
    """The same function; metrics that are read are written down."""

    def urlopen(url: Any, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        answer = original(url, *arguments, **options)
        if isinstance(url, str) and url.endswith("/metrics"):
            read = answer.read

            def heard(*size: int) -> bytes:
                body: bytes = read(*size)
                evidence.metrics.update(_moved_metrics(body.decode(), known=evidence.metrics))
                return body

            answer.read = heard
        return answer

    return urlopen


def _moved_metrics(text: str, *, known: Collection[str]) -> list[str]:
    """Names of the metrics that are not 0 somewhere; of those that are not known yet."""
    # Pages are read by the thousand, and the parser takes long.
    lines = [line for line in text.splitlines() if _NAME.split(line, 1)[0] not in known]
    return list(_moved_in("\n".join(lines)))


def _moved_in(page: str) -> Iterator[str]:
    for family in text_string_to_metric_families(page):
        moved = [sample.name for sample in family.samples if sample.value != 0]
        # A counter's samples are called as in the catalogue, a histogram's family is.
        yield from moved
        if family.name + "_count" in moved:
            yield family.name


def _listening(
    original: Callable[..., grpc.Channel], *, evidence: Evidence
) -> Callable[..., grpc.Channel]:
    """The same function; channels opened from test code are listened to."""

    def open_channel(*arguments: Any, **options: Any) -> grpc.Channel:  # noqa: ANN401
        channel = original(*arguments, **options)
        opened_by = sys._getframe(1).f_globals["__name__"]  # noqa: SLF001
        if not opened_by.startswith("tests."):
            return channel
        return grpc.intercept_channel(channel, _Listener(evidence))

    return open_channel


class _Listener(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Passes calls on unchanged and writes down how they went."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:  # noqa: ANN401
        """A call with one answer."""
        call = continuation(details, request)
        call.add_done_callback(lambda done: self._take_unary(details.method, done))
        return call

    def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:  # noqa: ANN401
        """A call with many answers, each written down when the test reads it."""
        return _HeardStream(continuation(details, request), details.method, self)

    def intercept_stream_stream(self, continuation: Any, details: Any, requests: Any) -> Any:  # noqa: ANN401
        """A stream of answers, each written down when the test reads it."""
        return _HeardStream(continuation(details, requests), details.method, self)

    def _take_unary(self, method: str, call: Any) -> None:  # noqa: ANN401
        if call.code() is grpc.StatusCode.OK:
            self.take_answer(method, call.result())
        else:
            self.take_failure(method, call)

    def take_answer(self, method: str, answer: Message | bytes) -> None:
        """An answer came: the call reached a server, which said what it did."""
        self._evidence.rpcs.add(method)
        if isinstance(answer, Message):
            self._evidence.outcomes.update(_outcomes_in(answer))

    def take_failure(self, method: str, error: Any) -> None:  # noqa: ANN401
        """The call failed, for a reason that the server gave."""
        for key, value in error.trailing_metadata() or ():
            if key != "grpc-status-details-bin":
                continue
            self._evidence.rpcs.add(method)
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info):
                    self._evidence.reasons.add(info.reason)


class _HeardStream:
    """A stream's call; what is read from it is written down, all else is as it was."""

    def __init__(self, call: Any, method: str, listener: _Listener) -> None:  # noqa: ANN401
        self._call = call
        self._method = method
        self._listener = listener

    def __iter__(self) -> "_HeardStream":
        return self

    def __next__(self) -> Message | bytes:
        try:
            answer: Message | bytes = next(self._call)
        except grpc.RpcError as error:
            self._listener.take_failure(self._method, error)
            raise
        self._listener.take_answer(self._method, answer)
        return answer

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._call, name)


def _outcomes_in(message: Message) -> Iterator[str]:
    """Every outcome anywhere in the message, without its prefix."""
    for descriptor, value in message.ListFields():
        values = value if descriptor.is_repeated else [value]
        if descriptor.enum_type is not None and descriptor.enum_type.full_name == _OUTCOME:
            for number in values:
                name = descriptor.enum_type.values_by_number[number].name
                yield name.removeprefix("OUTCOME_")
        elif descriptor.message_type is not None:
            # A map's values are numbers and texts, and it yields its keys.
            for part in () if descriptor.message_type.GetOptions().map_entry else values:
                yield from _outcomes_in(part)
