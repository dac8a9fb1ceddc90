"""What is fed with bytes. A target returns where a decoder reads or refuses; all else is a find."""

import contextlib
import zlib
from collections.abc import Callable, Mapping
from typing import Final, cast

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from billing.book_file import read_book
from billing.contract_file import read_contract
from billing.factory.plan_file import read_plan
from billing.money import find_currency
from meter import segment
from meter.domain.credential import parse_api_key
from meter.domain.errors import InvalidArgument, Overloaded, Unauthenticated
from meter.domain.limits import (
    ENERGY_PAGE_DEVICES_MAX,
    ENGINE_PAGE_SERIES_MAX,
    ENGINE_TOKENS_MAX,
    RECORD_EVENTS_MAX,
)
from meter.energy.factory_file import read_factory
from meter.energy.sources.dcgm import read_page
from meter.engines.page import read_page as read_engine_page
from meter.journal.protocol import DIGEST_BYTES, ProducerState, Verdict
from meter.sources.cloud_events import PROFILE as CLOUD_EVENTS_PROFILE
from meter.sources.cloud_events import NoCloudEvents, parse_binary, parse_structured
from meter.sources.cloud_events import read as read_events
from meter.sources.envoy import PROFILE as ENVOY_PROFILE
from meter.sources.envoy import read as read_entries
from meter.sources.litellm import PROFILE as LITELLM_PROFILE
from meter.sources.litellm import NoRecords, parse
from meter.sources.litellm import read as read_records
from meter.sources.observation import Observation, Source
from meter.sources.otlp import read_spans
from meter.sources.otlp_logs import read_logs
from meter.sources.places import Places, read_places
from meter.toml_file import FileFaults
from meter.wire.account_messages import place_from_token
from meter.wire.http_bodies import unpack
from meter.wire.otlp_servicer import from_bytes, from_json
from meter.wire.packed import UnreadableColumn, read_columns
from tests.meter.test_intake import (
    CREDENTIAL,
    INTAKE,
    ORIGIN,
    assert_usable,
    new_intake,
    take,
)
from tokenworks.client.answers import PROFILES_BY_PATH, AnswerReader
from tokenworks.client.foreign import Unfit
from tokenworks.client.spool import records
from tokenworks.client.spool.files import Files, SpoolUnusable
from tokenworks.client.spool.manifest import MANIFEST_NAMES, read_manifest
from tokenworks.client.usage_objects import pack as pack_usage
from tokenworks.client.usage_objects import unpack as unpack_usage
from tokenworks.foreign.envoy.v1 import access_log_pb2
from tokenworks.meter.v1 import meter_service_pb2

_TIERS: Final = ("free", "high")
# One of their own: the numbers of the other's dimensions are in the seeds.
OBSERVING: Final = new_intake()
EVENT_HEADERS: Final = {
    "ce-specversion": "1.0",
    "ce-id": "1",
    "ce-source": "shop",
    "ce-type": "inference.tokens.used",
}


def journal(data: bytes) -> None:
    """A segment of the journal: read whole, and by its head."""
    with contextlib.suppress(*segment.READ_FAULTS):
        read = segment.decode(data)
        assert all(len(column) == len(read) for column in read.columns.values())
        assert sum(count for _, count in read.origins) == len(read)
        head = segment.read_head(data)
        assert head.event_count == len(read)


def spool(data: bytes) -> None:
    """A segment of a spool: walked from end to end, each record once, whatever its bytes are."""
    header = records.read_header(data)
    seed = 0 if header is None else records.seed_of(header.first, salt=header.salt)
    position = min(records.HEADER_SIZE, len(data))
    for stretch in records.walk(data, seed=seed):
        assert stretch.start == position < stretch.end <= len(data)
        position = stretch.end
        records.is_torn(data, stretch, seed=seed)
        records.read_batch(data[stretch.start : stretch.end], local=1, seed=seed)
    assert position == len(data)


class _Folder:
    """A spool's folder in which both copies of the manifest have these bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def names(self) -> list[str]:
        """See `Files`."""
        return list(MANIFEST_NAMES)

    def read(self, _name: str, *, offset: int = 0, size: int | None = None) -> bytes:
        """See `Files`."""
        return self._data[offset : None if size is None else offset + size]


def manifest(data: bytes) -> None:
    """A spool's manifest."""
    with contextlib.suppress(SpoolUnusable):
        # Reads are all that it does.
        read_manifest(cast("Files", _Folder(data)))


def stream(data: bytes) -> None:
    """A message of a stream: a batch, one that is kept aside, or none."""
    submission = take(data)
    if submission is not None:
        assert_usable(submission)


def call(data: bytes) -> None:
    """A call with events that are counted by their ids."""
    try:
        request = meter_service_pb2.RecordUsageRequest.FromString(data)
    except DecodeError:
        return
    events = [event.SerializeToString() for event in request.events[:RECORD_EVENTS_MAX]]
    with contextlib.suppress(InvalidArgument):
        submission, outcomes = INTAKE.from_events(events, CREDENTIAL, ORIGIN)
        assert len(outcomes) == len(events)
        assert_usable(submission)


def columns(data: bytes) -> None:
    """Columns of numbers, each in chunks: a byte says how many bytes the next chunk has."""
    chunks, place = [], 0
    while place < len(data):
        end = place + 1 + data[place]
        chunks.append(data[place + 1 : end])
        place = end
    with contextlib.suppress(UnreadableColumn):
        if chunks:
            assert len(read_columns([[chunk] for chunk in chunks])) == len(chunks)


def usage(data: bytes) -> None:
    """The usage objects of a batch, as JSON and as they come: of three events, counts alone."""
    for packed in (data, zlib.compress(data)):
        with contextlib.suppress(ValueError):
            found = unpack_usage(packed, count=3)
            assert found.keys() <= {0, 1, 2}
            again = pack_usage([found.get(place) for place in range(3)])
            assert not again or unpack_usage(again, count=3) == found


def digests(data: bytes) -> None:
    """A producer's digests and a batch: it is acknowledged only when its digest is there."""
    if len(data) <= DIGEST_BYTES + 2:
        return
    digest, known = data[2 : 2 + DIGEST_BYTES], data[2 + DIGEST_BYTES :]
    state = ProducerState(instance=b"", sequence=data[0], digests=known)
    verdict = state.judge(instance=b"", sequence=data[1], digest=digest)
    assert verdict is not Verdict.REPEATED or digest in known
    assert state.recorded(digest).digests.endswith(digest)


def files(data: bytes) -> None:
    """A TOML file that a person has written; the first byte says which kind it is read as."""
    text = data[1:].decode("utf-8", "replace")
    with contextlib.suppress(FileFaults):
        match data[0] % 5 if data else 0:
            case 0:
                read_book(text, tiers=_TIERS)
            case 1:
                read_contract(
                    text,
                    tiers=_TIERS,
                    find_account=lambda name, _: name,
                    find_currency_of_book=lambda _: find_currency("EUR"),
                )
            case 2:
                read_factory(text, version=1, tiers=_TIERS)
            case 3:
                read_plan(text)
            case _:
                read_places(text)


def page(data: bytes) -> None:
    """A page of an exporter's energy counters, or of an engine's token counters."""
    text = data.decode("utf-8", "replace")
    engine = read_engine_page(text)
    assert len(engine.counters) <= ENGINE_PAGE_SERIES_MAX
    assert all(0 <= it.tokens <= ENGINE_TOKENS_MAX for it in engine.counters.values())
    found = read_page(text)
    assert len(found.counters_mj) <= ENERGY_PAGE_DEVICES_MAX
    assert all(value >= 0 for value in (*found.counters_mj.values(), *found.powers_mw.values()))


def tokens(data: bytes) -> None:
    """What callers hand back or show: the token of a page, an API key."""
    text = data.decode("utf-8", "replace")
    with contextlib.suppress(InvalidArgument):
        place_from_token(text)
    with contextlib.suppress(Unauthenticated):
        parse_api_key(text)


def answer(data: bytes) -> None:
    """An engine's answer; the first byte says how it is read, the second how it is cut."""
    if len(data) < 2:
        return
    profiles = sorted(set(PROFILES_BY_PATH.values()))
    reader = AnswerReader(
        profile=profiles[data[0] // 2 % len(profiles)], is_stream=bool(data[0] % 2)
    )
    for begin in range(2, len(data), data[1] + 1):
        reader.feed(data[begin : begin + data[1] + 1])
    with contextlib.suppress(Unfit):
        found = reader.read()
        assert found.usage is None or isinstance(found.usage, dict)
        assert isinstance(found.model, str)


def otlp(data: bytes) -> None:
    """An export of traces or of logs, in either form; the first byte says which."""
    kind, body = data[0] % 4 if data else 0, data[1:]
    request = ExportTraceServiceRequest if kind % 2 == 0 else ExportLogsServiceRequest
    with contextlib.suppress(InvalidArgument):
        message = (from_bytes if kind < 2 else from_json)(body, request)
        found = (
            read_spans(message, Places())
            if kind % 2 == 0
            else read_logs(message, Places(), received_ms=ORIGIN.received_ms)
        )
        for reports in found:
            submission, outcomes = OBSERVING.from_observations(
                reports.observations,
                CREDENTIAL,
                ORIGIN,
                source=reports.source,
                profile=reports.profile,
            )
            assert len(outcomes) == len(reports.observations)
            assert_usable(submission)


def envoy(data: bytes) -> None:
    """A message of Envoy's access log."""
    with contextlib.suppress(DecodeError):
        entries = access_log_pb2.AccessLogMessage.FromString(data).http_logs.log_entry
        found = read_entries(entries, node="n", places=Places(), received_ms=ORIGIN.received_ms)
        observations = [each for each in found if isinstance(each, Observation)]
        submission, outcomes = OBSERVING.from_observations(
            observations, CREDENTIAL, ORIGIN, source=Source.ENVOY, profile=ENVOY_PROFILE
        )
        assert len(outcomes) == len(observations)
        assert_usable(submission)


def cloud_events(data: bytes) -> None:
    """CloudEvents: whole ones, or data under headers; packed or not, as the first byte says."""
    kind, body = data[0] % 4 if data else 0, data[1:]
    with contextlib.suppress(InvalidArgument, Overloaded, NoCloudEvents):
        if kind % 2:
            body = unpack(body, bytes_max=10_000)
        events = parse_binary(EVENT_HEADERS, body) if kind > 1 else parse_structured(body)
        found = read_events(events, places=Places(), received_ms=ORIGIN.received_ms)
        observations = [each for each in found if isinstance(each, Observation)]
        submission, outcomes = OBSERVING.from_observations(
            observations,
            CREDENTIAL,
            ORIGIN,
            source=Source.CLOUD_EVENTS,
            profile=CLOUD_EVENTS_PROFILE,
        )
        assert len(outcomes) == len(observations)
        assert_usable(submission)


def litellm(data: bytes) -> None:
    """Records of LiteLLM, in each of their forms."""
    with contextlib.suppress(NoRecords):
        found = read_records(parse(data), places=Places(), received_ms=ORIGIN.received_ms)
        observations = [each for each in found if isinstance(each, Observation)]
        submission, outcomes = OBSERVING.from_observations(
            observations, CREDENTIAL, ORIGIN, source=Source.LITELLM, profile=LITELLM_PROFILE
        )
        assert len(outcomes) == len(observations)
        assert_usable(submission)


TARGETS: Final[Mapping[str, Callable[[bytes], None]]] = {
    target.__name__: target
    for target in (
        journal, spool, manifest, stream, call, columns, digests, files, page, tokens, otlp,
        envoy, cloud_events, litellm, answer, usage,
    )
}  # fmt: skip
"""By the names of their corpora."""
