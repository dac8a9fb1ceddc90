"""Questions to the meter about usage, and the words of their answers."""

from collections.abc import Callable, Collection
from typing import Final

import click

from cli.usage.span import Span
from tokenworks.meter.v1 import meter_service_pb2 as pb
from tokenworks.meter.v1 import usage_pb2

# The wire's numbers in the order of their numbers, by the names that options and JSON have.
TOKEN_CLASSES: Final = {
    number: name.removeprefix("TOKEN_CLASS_").lower()
    for name, number in usage_pb2.TokenClass.items()
    if number
}
MODES: Final = {
    number: name.removeprefix("MODE_").lower() for name, number in usage_pb2.Mode.items() if number
}
FINISHES: Final = {
    number: name.removeprefix("FINISH_").lower()
    for name, number in usage_pb2.Finish.items()
    if number
}
QUALITIES: Final = {
    number: name.removeprefix("QUALITY_").lower()
    for name, number in usage_pb2.Quality.items()
    if number
}
SOURCES: Final = {
    number: name.removeprefix("SOURCE_").lower()
    for name, number in usage_pb2.Source.items()
    if number
}
GROUPS: Final = {
    name.removeprefix("GROUP_BY_").lower(): number for name, number in pb.GroupBy.items() if number
}
TIMES: Final = ("interval", "day")
# Sums of a row beside its tokens.
SUMS: Final = ("request_count", "unfinished_count", "delivered_output_count", "estimated_count")


def make_group_splitter(
    groups: Collection[str], *, times: Collection[str], clash: str
) -> Callable[[click.Context, click.Parameter, str], tuple[str, ...]]:
    """Return what splits an option's names at commas: each a group, once, at most one of times."""

    def split(context: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:
        names = tuple(name.strip() for name in value.split(","))
        unknown = [name for name in names if name not in groups]
        if unknown:
            known = ", ".join(groups)
            raise click.BadParameter(f"{unknown[0]!r} is none of {known}.", context, param)
        if len(set(names)) < len(names):
            raise click.BadParameter("name each at most once.", context, param)
        if len(set(names).intersection(times)) > 1:
            raise click.BadParameter(clash, context, param)
        return names

    return split


split_groups: Final = make_group_splitter(GROUPS, times=TIMES, clash="day or interval, not both.")


def to_request(
    span: Span, *, account_id: str, by: tuple[str, ...], model: str = "", tier: str = ""
) -> pb.QueryUsageRequest:
    """Return the question for usage in a span; an empty account is the whole installation."""
    request = pb.QueryUsageRequest(account=account_id, model=model, tier=tier)
    for name in by:
        request.group_by.append(pb.GroupBy.Name(GROUPS[name]))  # type: ignore[arg-type]
    request.start_time.FromMilliseconds(span.start_ms)
    request.end_time.FromMilliseconds(span.end_ms)
    return request


def row_to_json(row: pb.UsageRow, *, by: tuple[str, ...]) -> dict[str, object]:
    """Return a row as JSON has it: what it was split by, and its sums."""
    keys: dict[str, object] = {}
    for name in by:
        if name in TIMES:
            keys["start_time"] = row.start_time.ToJsonString()
        else:
            keys[name] = MODES.get(row.mode, row.mode) if name == "mode" else getattr(row, name)
        if name == "account":
            keys["handle"] = row.handle
    return {
        **keys,
        "tokens": tokens_of(row),
        **{name: getattr(row, name) for name in SUMS},
        "energy_mj": find_energy_mj(row),
    }


def find_energy_mj(row: pb.UsageRow) -> int | None:
    """Return the energy (mJ) that the row's tokens took; None where none is known."""
    return row.energy_mj if row.HasField("energy_mj") else None


def tokens_of(row: pb.UsageRow) -> dict[str, int]:
    """Return the row's sums by token class."""
    return {class_name(item.token_class): item.count for item in row.tokens}


def class_name(number: usage_pb2.TokenClass.ValueType) -> str:
    """Return the name of a token class; one that has none, its number."""
    return TOKEN_CLASSES.get(number) or f"class_{number}"
