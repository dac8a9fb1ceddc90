"""Reports of parts of one request that came together are one report. Pure."""

from collections.abc import Sequence

from meter.domain.tokens import OUTPUT_CLASSES
from meter.sources.observation import Observation


def join(whole: Observation, more: Observation, *, is_same_prompt: bool) -> None:
    """Add a report to another one of its request; named is the whole by the lesser of both ids."""
    tokens = dict(whole.tokens)
    for number, count in more.tokens.items():
        known = tokens.get(number, 0)
        is_once = is_same_prompt and number not in OUTPUT_CLASSES
        tokens[number] = max(known, count) if is_once else known + count
    whole.tokens = tokens
    whole.report_id = min(whole.report_id, more.report_id)
    whole.end_ms = max(whole.end_ms, more.end_ms)
    whole.duration_ms = max(whole.duration_ms, more.duration_ms)
    whole.finish = max(whole.finish, more.finish)
    inputs, outputs = (
        (whole.reported_input, more.reported_input),
        (
            whole.reported_output,
            more.reported_output,
        ),
    )
    whole.reported_input = max(inputs) if is_same_prompt else _sum(inputs)
    whole.reported_output = _sum(outputs)
    originals = whole.original.get("spans") or [whole.original]
    assert isinstance(originals, list)
    whole.original = {"spans": [*originals, *(more.original.get("spans") or [more.original])]}  # type: ignore[misc]


def _sum(stated: Sequence[int]) -> int:
    return -1 if min(stated) < 0 else sum(stated)
