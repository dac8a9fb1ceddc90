"""LiteLLM's record of a call (`StandardLoggingPayload`), read as usage. Pure.

The same table serves the logger that runs inside LiteLLM's proxy and the meter, to which the proxy
may send its records by itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from tokenworks.client.foreign import Unfit
from tokenworks.client.profiles import read_usage
from tokenworks.client.usage_counts import count_of, total_of
from tokenworks.client.vocabulary import Finish, Mode, Quality, TokenClass

# Where a request's headers have what, unless somebody says otherwise.
HEADERS: Final[Mapping[str, str]] = {
    "account": "x-tokenworks-account",
    "tier": "x-tokenworks-tier",
    "pool": "x-tokenworks-pool",
    "region": "x-tokenworks-region",
    "request_id": "x-request-id",
}


def place_fault(place: str) -> str | None:
    """Return what is wrong with a place as it is written, None where nothing is."""
    kind, _, name = place.partition(":")
    if place in ("header", "none") or (name and kind in ("header", "metadata", "field")):
        return None
    return "is no place: header, header:NAME, metadata:KEY, field:KEY or none"


def _place(*places: str) -> tuple[str, ...]:
    """Return a field of places; of several the first that has a text counts."""
    found: tuple[str, ...] = field(default=places, metadata={"fault": place_fault})
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class LiteLlmPlaces:
    """Where a record has the account and the rest; of several places the first that has a text.

    `header:NAME` is a header of the caller's (those that begin with `x-` are recorded, in small
    letters), `header` alone the one that is agreed for all sources. `metadata:KEY` is in the
    record's metadata, where the proxy writes whose key was used; `metadata:KEY.KEY` is inside of
    that. `field:KEY` is in the record itself, and `none` nowhere.
    """

    account: tuple[str, ...] = _place(
        "metadata:user_api_key_team_id", "metadata:user_api_key_org_id", "header"
    )
    tier: tuple[str, ...] = _place("metadata:user_api_key_auth_metadata.tokenworks_tier", "header")
    pool: tuple[str, ...] = _place("header")
    region: tuple[str, ...] = _place("header")
    request_id: tuple[str, ...] = _place("header", "field:litellm_call_id")
    model: tuple[str, ...] = _place("field:model_group", "field:model")
    served_model: tuple[str, ...] = _place("field:model")


@dataclass(frozen=True, slots=True, kw_only=True)
class LiteLlmCall:
    """What a record says; an empty text says nothing.

    `report_id` is the record's own, the same when it is sent again. `end_time` is in seconds since
    1970, None where there is none. `profile` has read `usage`; the counts are -1 where unknown.
    """

    report_id: str
    request_id: str
    account: str
    model: str
    served_model: str
    tier: str
    pool: str
    region: str
    mode: Mode
    finish: Finish
    quality: Quality
    end_time: float | None
    duration_ms: int
    tokens: Mapping[TokenClass, int]
    reported_input_count: int
    reported_output_count: int
    profile: str
    usage: Mapping[str, object]
    is_cache_hit: bool


def find_call(
    payload: object,
    *,
    places: LiteLlmPlaces,
    headers: Mapping[str, str] = HEADERS,
) -> LiteLlmCall | None:
    """Read a record; None where it has no usage. Raises Unfit for what cannot be read.

    `headers` are the names, in small letters, that a place `header` stands for.
    """
    if payload is None:
        return None
    if not isinstance(payload, Mapping):
        raise Unfit("a record is no object")
    usage = _find_usage(payload)
    call_type = payload.get("call_type")
    is_batch = isinstance(call_type, str) and "batch" in call_type
    # A batch is asked for again and again until it is done.
    if usage is None or (is_batch and not _has_tokens(usage)):
        return None
    profile = _profile(payload)
    is_cache_hit = payload.get("cache_hit") is True
    counts = _NOTHING if is_cache_hit else _read_counts(usage, profile=profile)
    call_id = _text(payload, "litellm_call_id") or _text(payload, "id")
    if not call_id:
        raise Unfit("litellm_call_id is missing")
    start, end = _time(payload, "startTime"), _time(payload, "endTime")
    finish = _finish(payload)

    def said(name: str) -> str:
        for place in getattr(places, name):
            text = _at(payload, place, header=headers.get(name, ""))
            if text:
                return text
        return ""

    report_id = f"litellm:{call_id}:{0 if start is None else round(start * 1000)}"
    request_id = said("request_id")
    if is_batch:
        request_id = f"batch:{_text(payload, 'id') or call_id}"
        report_id = f"litellm:{request_id}"
    served_model = said("served_model").removeprefix(_text(payload, "custom_llm_provider") + "/")
    return LiteLlmCall(
        report_id=report_id,
        request_id=request_id,
        account=said("account"),
        model=said("model"),
        served_model=served_model,
        tier=said("tier"),
        pool=said("pool"),
        region=said("region"),
        mode=Mode.BATCH if is_batch else Mode.ONLINE,
        finish=finish,
        # LiteLLM counts by itself what the answer did not come to, and does not say so.
        quality=Quality.FINAL if finish in _WHOLE else Quality.ESTIMATED,
        end_time=end,
        duration_ms=0 if start is None or end is None else max(0, round((end - start) * 1000)),
        tokens=counts[0],
        reported_input_count=counts[1],
        reported_output_count=counts[2],
        profile=profile,
        usage=usage,
        is_cache_hit=is_cache_hit,
    )


_UNKNOWN: Final = -1
_Counts = tuple[Mapping[TokenClass, int], int, int]
# What was answered from LiteLLM's own cache went to no model.
_NOTHING: Final[_Counts] = ({}, _UNKNOWN, _UNKNOWN)
_WHOLE: Final = (Finish.COMPLETED, Finish.TRUNCATED)
_TOTALS: Final = ("prompt_tokens", "completion_tokens")
_TIME_SECONDS_MAX: Final = 1e11
# These write to caches that keep for 5 minutes unless somebody says otherwise.
_ANTHROPIC: Final = frozenset({"anthropic", "bedrock", "bedrock_converse"})
_PROMPT_PARTS: Final[Mapping[str, TokenClass]] = {
    "cached_tokens": TokenClass.CACHE_READ,
    "cache_creation_tokens": TokenClass.CACHE_WRITE_30M,
    "audio_tokens": TokenClass.AUDIO_INPUT,
    "image_tokens": TokenClass.IMAGE_INPUT,
    "video_tokens": TokenClass.VIDEO_INPUT,
}
_OUTPUT_PARTS: Final[Mapping[str, TokenClass]] = {
    "reasoning_tokens": TokenClass.REASONING,
    "audio_tokens": TokenClass.AUDIO_OUTPUT,
    "image_tokens": TokenClass.IMAGE_OUTPUT,
    "video_tokens": TokenClass.VIDEO_OUTPUT,
}


def _find_usage(payload: Mapping[str, object]) -> Mapping[str, object] | None:
    """Return the usage object with both its totals; None where there is none.

    A record without an object has 0 for what it does not know: only then 0 is nothing.
    """
    metadata = payload.get("metadata")
    found = metadata.get("usage_object") if isinstance(metadata, Mapping) else None
    totals = {name: payload.get(name) for name in _TOTALS}
    if not isinstance(found, Mapping) or not found:
        return totals if any(totals.values()) else None
    missing = {name: count for name, count in totals.items() if found.get(name) is None}
    return {**found, **missing}


def _has_tokens(usage: Mapping[str, object]) -> bool:
    return any(usage.get(name) for name in _TOTALS)


def _read_counts(usage: Mapping[str, object], *, profile: str) -> _Counts:
    """Read the counts; those that contradict each other stay as they are, for the meter to judge.

    Raises Unfit where one of them is no count, or none contradicts.
    """
    try:
        reading = read_usage(usage, profile=profile)
    except Unfit:
        asked, made = (total_of(usage, name) for name in _TOTALS)
        parts = {
            **_parts(usage, "prompt_tokens_details", _PROMPT_PARTS),
            **_parts(usage, "completion_tokens_details", _OUTPUT_PARTS),
        }
        if not parts:
            raise
        return {TokenClass.INPUT: asked, TokenClass.OUTPUT: made, **parts}, asked, made
    return reading.tokens, reading.reported_input_count, reading.reported_output_count


def _parts(
    usage: Mapping[str, object], name: str, classes: Mapping[str, TokenClass]
) -> dict[TokenClass, int]:
    details = usage.get(name)
    if not isinstance(details, Mapping):
        return {}
    return {number: count for each, number in classes.items() if (count := count_of(details, each))}


def _profile(payload: Mapping[str, object]) -> str:
    provider, model = _text(payload, "custom_llm_provider"), _text(payload, "model")
    is_claude = provider.startswith(("vertex_ai", "azure_ai")) and "claude" in model
    return "litellm_anthropic" if provider in _ANTHROPIC or is_claude else "litellm"


def _finish(payload: Mapping[str, object]) -> Finish:
    error = payload.get("error_information")
    kind = error.get("error_class") if isinstance(error, Mapping) else None
    if kind == "ClientDisconnected":
        return Finish.CANCELLED
    if payload.get("status") == "failure":
        return Finish.FAILED
    response = payload.get("response")
    choices = response.get("choices") if isinstance(response, Mapping) else None
    if isinstance(choices, Sequence) and any(
        isinstance(choice, Mapping) and choice.get("finish_reason") == "length"
        for choice in choices
    ):
        return Finish.TRUNCATED
    return Finish.COMPLETED


def _time(payload: Mapping[str, object], name: str) -> float | None:
    time = payload.get(name)
    # No comparison holds for what is no number.
    if isinstance(time, int | float) and 0 < time < _TIME_SECONDS_MAX:
        return float(time)
    return None


def _at(payload: Mapping[str, object], place: str, *, header: str) -> str:
    kind, _, name = place.partition(":")
    if kind == "none":
        return ""
    if kind == "field":
        return _text(payload, name)
    found: object = payload.get("metadata")
    if kind == "header":
        headers = found.get("requester_custom_headers") if isinstance(found, Mapping) else None
        return _text(headers, name or header)
    *parents, last = name.split(".")
    for parent in parents:
        found = found.get(parent) if isinstance(found, Mapping) else None
    return _text(found, last)


def _text(container: object, name: str) -> str:
    text = container.get(name) if isinstance(container, Mapping) else None
    # JSON may have half of a pair of surrogates, which no UTF-8 has.
    return text.encode(errors="replace").decode() if isinstance(text, str) else ""
