"""NVIDIA Dynamo's trace of requests: a log record for each one that is over. Pure.

What it counted is JSON in an attribute. Dynamo tells whose model and which of the edge's ids it was
of those requests alone that came with a session id; and it tells nobody's account, unless the edge
writes it into that id.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from meter.sources.joining import join
from meter.sources.observation import Observation, Unreadable
from meter.sources.otlp import finish_of, partition, texts_of
from meter.sources.otlp_profiles import CACHE_WRITE
from meter.sources.places import Places

PROFILE: Final = "dynamo_log/1"
SCOPE: Final = "dynamo.request_trace"
_SCHEMA: Final = "dynamo.request.trace.v1"
_END: Final = "request_end"
_NS_PER_MS: Final = 1_000_000
_DURATION_MS_MAX: Final = 2**40
_COMPLETED: Final = 1
_CANCELLED: Final = 3
_FINAL: Final = 1
_PARTIAL: Final = 2
# Each of several prompts to one request is a request of its own here: an UUID, and its number.
_PROMPT: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}-\d{1,6}")
_CALL_CHARS: Final = 8
_NO_JSON: Final = Unreadable(reason="a payload of Dynamo is no JSON of its schema")
_HALF: Final = Unreadable(reason="a record of Dynamo has only one of input and output")


def read(
    records: Iterable[Any], places: Places, resource: Mapping[str, str]
) -> Iterator[Observation | Unreadable]:
    """Yield what records of Dynamo's scope report; the prompts of one request are one report.

    Records of other kinds, which may hold prompts, are passed over.
    """
    prompts: dict[tuple[str, int], Observation] = {}
    for record in records:
        found = _read_record(record, places, resource)
        if not isinstance(found, Observation) or not found.is_choice:
            if found is not None:
                yield found
            continue
        known = prompts.setdefault((found.request_id, found.arrival_ns), found)
        if known is not found:
            join(known, found, is_same_prompt=False)
    yield from prompts.values()


def _read_record(
    record: Any,  # noqa: ANN401
    places: Places,
    resource: Mapping[str, str],
) -> Observation | Unreadable | None:
    attributes = texts_of(record.attributes)
    if attributes.get("event_type") != _END:
        return None
    try:
        payload = json.loads(attributes.get("payload", ""))
    except (ValueError, RecursionError):
        return _NO_JSON
    request = payload.get("request") if isinstance(payload, dict) else None
    if not isinstance(request, dict) or payload.get("schema") != _SCHEMA:
        return _NO_JSON
    counts = {
        name: request[name]
        for name in ("input_tokens", "output_tokens", "cached_tokens")
        if request.get(name) is not None
    }
    if not counts:
        return None
    own_id = _text(request.get("request_id"))
    if not all(_is_count(count) for count in counts.values()) or not own_id:
        return _NO_JSON
    if "input_tokens" not in counts or "output_tokens" not in counts:
        return _HALF
    return _to_observation(
        payload,
        request,
        counts,
        own_id=own_id,
        end_ms=record.time_unix_nano // _NS_PER_MS,
        places=places,
        resource=resource,
    )


def _to_observation(
    payload: Mapping[str, Any],
    request: Mapping[str, Any],
    counts: Mapping[str, int],
    *,
    own_id: str,
    end_ms: int,
    places: Places,
    resource: Mapping[str, str],
) -> Observation:
    edge_id = _text(request.get("x_request_id"))
    session = payload.get("agent_context")
    account, _, tier = _named_by(session, places.dynamo.account).partition(":")
    own = places.otlp
    finish, quality = _finish(request, is_told=isinstance(session, dict))
    is_prompt = bool(edge_id) and _PROMPT.fullmatch(own_id) is not None
    return Observation(
        report_id=f"dynamo:{own_id}:{_END}",
        request_id=edge_id or own_id,
        dimensions=places.to_dimensions(
            model=_text(request.get("model")) or resource.get(own.model, ""),
            account=account or resource.get(own.account, ""),
            tier=tier or resource.get(own.tier, ""),
            pool=resource.get(own.pool, ""),
            region=resource.get(own.region, ""),
        ),
        end_ms=_ended_ms(payload, end_ms),
        duration_ms=_duration_ms(request.get("total_time_ms")),
        tokens=partition(
            counts["input_tokens"],
            counts["output_tokens"],
            cached=counts.get("cached_tokens", 0),
            written=0,
            written_class=CACHE_WRITE,
            reasoning=0,
        ),
        finish=finish,
        quality=quality,
        reported_input=counts["input_tokens"],
        reported_output=counts["output_tokens"],
        is_choice=is_prompt,
        # When each prompt came differs by some ms; that they came in one call is told by the UUID.
        arrival_ns=int(own_id[:_CALL_CHARS], 16) if is_prompt else 0,
        original={**counts, "request_id": own_id},
    )


def _named_by(session: object, place: str) -> str:
    """Return what the edge wrote into the id that `place` names; empty where it wrote none."""
    return _text(session.get(place)) if isinstance(session, dict) else ""


def _finish(request: Mapping[str, Any], *, is_told: bool) -> tuple[int, int]:
    """Return how a request ended, and how good its counts are.

    Where ends are told (`is_told`), a request without one was left by its caller: what was counted
    until then, with what was cached among the input.
    """
    told = request.get("finish_reason_metadata")
    words = _text(told.get("finish_reason")) if isinstance(told, dict) else ""
    if is_told and not words:
        return _CANCELLED, _PARTIAL
    return finish_of(words) if words else _COMPLETED, _FINAL


def _ended_ms(payload: Mapping[str, Any], otherwise: int) -> int:
    ended = payload.get("event_time_unix_ms")
    return ended if isinstance(ended, int) and _is_count(ended) else otherwise


def _duration_ms(took: object) -> int:
    return int(took) if isinstance(took, int | float) and 0 <= took < _DURATION_MS_MAX else 0


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**62


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
