"""Log records of OpenTelemetry as reports of requests: Dynamo's and Envoy's. Pure.

Dynamo writes a record for each request that is over, with what it counted as JSON. Envoy's access
log has what the operator's configuration puts into it, all of it as texts; what it means is read as
the entries of Envoy's own log service are.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from meter.sources import dynamo, envoy
from meter.sources.observation import Observation, Source, Unreadable
from meter.sources.otlp import Reports, texts_of
from meter.sources.places import Places
from tokenworks.foreign.envoy.v1 import access_log_pb2

ENVOY_PROFILE: Final = "envoy_log/1"
_NS_PER_MS: Final = 1_000_000
# What Envoy writes where there is nothing.
_MISSING: Final = "-"
_ENVOY_NODE: Final = "node_name"
_ENVOY_LOG: Final = "log_name"
_DIGITS_MAX: Final = 12
_CODE_DIGITS: Final = 3
# The end of what a time of protobuf may be, in ns; and what no count is beyond.
_NS_MAX: Final = 253_402_300_799 * 10**9
_NUMBER_MAX: Final = 2.0**62
_TYPES: Final[Mapping[str, int]] = {
    "DownstreamStart": 4,
    "DownstreamPeriodic": 5,
    "DownstreamEnd": 6,
    "UpstreamEnd": 9,
}
# What `%RESPONSE_FLAGS%` writes, and the fields that Envoy's own log has for it.
_FLAGS: Final[Mapping[str, str]] = {
    "UH": "no_healthy_upstream",
    "UT": "upstream_request_timeout",
    "LR": "local_reset",
    "UR": "upstream_remote_reset",
    "UF": "upstream_connection_failure",
    "UC": "upstream_connection_termination",
    "UO": "upstream_overflow",
    "DC": "downstream_connection_termination",
    "URX": "upstream_retry_limit_exceeded",
    "SI": "stream_idle_timeout",
    "UMSDR": "upstream_max_stream_duration_reached",
    "DT": "duration_timeout",
    "UPE": "upstream_protocol_error",
    "OM": "overload_manager",
    "DR": "downstream_remote_reset",
}
_NO_METADATA: Final = Unreadable(reason="dynamic metadata in Envoy's log is no JSON")


def read_logs(request: Any, places: Places, *, received_ms: int) -> list[Reports]:  # noqa: ANN401
    """Read an `ExportLogsServiceRequest`; records of others are passed over.

    `received_ms` is ms since 1970, UTC: an Envoy's record without a time ended then.
    """
    engine = Reports(source=Source.LOG, profile=dynamo.PROFILE)
    gateway = Reports(source=Source.ENVOY, profile=ENVOY_PROFILE)
    for group in request.resource_logs:
        resource = texts_of(group.resource.attributes)
        for scoped in group.scope_logs:
            if scoped.scope.name == dynamo.SCOPE:
                for found in dynamo.read(scoped.log_records, places, resource):
                    _sort(found, engine)
            elif _ENVOY_LOG in resource and not scoped.scope.name:
                for found in _read_envoy(
                    scoped.log_records, places, resource, received_ms=received_ms
                ):
                    _sort(found, gateway)
    return [reports for reports in (engine, gateway) if reports.observations or reports.unreadable]


def _sort(found: Observation | Unreadable, reports: Reports) -> None:
    if isinstance(found, Observation):
        reports.observations.append(found)
    else:
        reports.unreadable.append(found)


def _read_envoy(
    records: Iterable[Any], places: Places, resource: Mapping[str, str], *, received_ms: int
) -> Iterable[Observation | Unreadable]:
    entries = []
    for record in records:
        attributes = {
            key: text for key, text in texts_of(record.attributes).items() if text != _MISSING
        }
        entry = _to_entry(attributes, started_ns=record.time_unix_nano)
        if entry is None:
            yield _NO_METADATA
        else:
            entries.append(entry)
    node = resource.get(_ENVOY_NODE, "")
    yield from envoy.read(entries, node=node, places=places, received_ms=received_ms)


def _to_entry(attributes: Mapping[str, str], *, started_ns: int) -> access_log_pb2.HttpEntry | None:
    """Return a record as an entry of Envoy's own log; None where its metadata cannot be read."""
    entry = access_log_pb2.HttpEntry()
    common, request = entry.common_properties, entry.request
    common.start_time.seconds, common.start_time.nanos = divmod(min(started_ns, _NS_MAX), 10**9)
    took = attributes.get("duration_ms", "")
    if took.isdecimal() and len(took) <= _DIGITS_MAX:
        seconds, rest = divmod(int(took), 1000)
        common.duration.seconds, common.duration.nanos = seconds, rest * _NS_PER_MS
    common.access_log_type = _TYPES.get(attributes.get("access_log_type", ""), 0)  # type: ignore[assignment]
    common.stream_id = attributes.get("stream_id", "")
    common.upstream_cluster = attributes.get("cluster", "")
    common.route_name = attributes.get("route", "")
    request.path = attributes.get("path", "")
    request.request_id = attributes.get("header:x-request-id", "")
    code = attributes.get("response_code", "")
    if code.isdecimal() and len(code) == _CODE_DIGITS:
        entry.response.response_code.value = int(code)
    for flag in attributes.get("response_flags", "").split(","):
        if flag in _FLAGS:
            setattr(common.response_flags, _FLAGS[flag], True)
    for key, text in attributes.items():
        kind, _, name = key.partition(":")
        if kind == "header":
            request.request_headers[name] = text
        elif kind == "tag":
            common.custom_tags[name] = text
        elif kind == "metadata" and not _add_metadata(common.metadata, name, text):
            return None
    return entry


def _add_metadata(metadata: Any, namespace: str, text: str) -> bool:  # noqa: ANN401
    """Add a namespace's numbers and texts; tell whether it could be read."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return False
    if not isinstance(found, dict):
        return False
    fields = metadata.filter_metadata[namespace].fields
    for key, value in found.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            if abs(value) > _NUMBER_MAX:
                return False
            fields[key].number_value = value
        elif isinstance(value, str):
            fields[key].string_value = value
    return True
