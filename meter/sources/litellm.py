"""LiteLLM's records of calls, as its proxy sends them by HTTP. Pure.

A record is known by `litellm_call_id`: its `id` is that of the answer, which is not unique.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Final

from meter.sources.observation import Observation, Unreadable
from meter.sources.places import COUNT, Places
from tokenworks.client.foreign import Unfit
from tokenworks.client.litellm_payload import LiteLlmCall, find_call
from tokenworks.client.usage_objects import kept

# Kept with the originals: what reads them, and how old that is.
PROFILE: Final = "litellm/1"


class NoRecords(ValueError):
    """What was sent is neither JSON nor a JSON value on each line."""


def parse(body: bytes) -> Sequence[object]:
    """Return the records of a body: a list of them, one alone, or one on each line.

    LiteLLM calls all of them `application/json`. Raises NoRecords.
    """
    try:
        content: object = json.loads(body)
    except (ValueError, RecursionError):
        return _parse_lines(body)
    return content if isinstance(content, list) else [content]


def read(
    records: Sequence[object], *, places: Places, received_ms: int
) -> Iterator[Observation | Unreadable]:
    """Yield what the records report; one without any usage yields nothing.

    A record without a time ended when it was received. Where LiteLLM's spans are counted, its
    records are doubtful: of one call both are, and they share no id.
    """
    own, headers = places.litellm, places.headers
    are_doubtful = places.otlp.litellm == COUNT
    names = {
        "account": headers.account,
        "tier": headers.tier,
        "pool": headers.pool,
        "region": headers.region,
        "request_id": headers.request_id,
    }
    for record in records:
        try:
            call = find_call(record, places=own, headers=names)
        except Unfit as error:
            yield Unreadable(reason=str(error))
            continue
        if call is not None:
            observation = _observe(call, places=places, received_ms=received_ms)
            observation.is_doubtful = are_doubtful
            yield observation


def _observe(call: LiteLlmCall, *, places: Places, received_ms: int) -> Observation:
    return Observation(
        report_id=call.report_id,
        request_id=call.request_id,
        dimensions=places.to_dimensions(
            account=call.account,
            model=call.model,
            served_model=call.served_model,
            tier=call.tier,
            mode=int(call.mode),
            pool=call.pool,
            region=call.region,
        ),
        end_ms=received_ms if call.end_time is None else round(call.end_time * 1000),
        duration_ms=call.duration_ms,
        finish=int(call.finish),
        quality=int(call.quality),
        tokens={int(number): count for number, count in call.tokens.items() if count},
        reported_input=call.reported_input_count,
        reported_output=call.reported_output_count,
        original={
            "convention": call.profile,
            **({"cache_hit": True} if call.is_cache_hit else {}),
            **kept(call.usage),
        },
    )


def _parse_lines(body: bytes) -> Sequence[object]:
    lines = [line for line in body.splitlines() if line.strip()]
    if not lines:
        raise NoRecords
    try:
        return [json.loads(line) for line in lines]
    except (ValueError, RecursionError):
        raise NoRecords from None
