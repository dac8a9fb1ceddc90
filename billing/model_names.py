"""The names of a book's models: each means one model, in whatever order they are read."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from billing.limits import NAMES_MAX, PATTERNS_MAX
from billing.price_book import can_meet, is_pattern
from meter.toml_file import Entry, quote


@dataclass(frozen=True, slots=True)
class ModelName:
    """A name or pattern that a model is found by, the key of its prices, and where it stands."""

    name: str
    key: str
    entry: Entry


def check_names(models: Entry, *, keys: Sequence[ModelName], aliases: Sequence[ModelName]) -> None:
    """Note each name that means two models, or one model twice, or one or another."""
    patterns = [it for it in (*keys, *aliases) if is_pattern(it.name)]
    if len(keys) + len(aliases) > NAMES_MAX or len(patterns) > PATTERNS_MAX:
        models.note(
            f"has more than {NAMES_MAX:,} names, or more than {PATTERNS_MAX} of them with a `*`"
        )
        return
    by_key = {it.name: it for it in keys}
    first_by_name: dict[str, ModelName] = {}
    for alias in aliases:
        first = first_by_name.setdefault(alias.name, alias)
        if alias.name == alias.key:
            alias.entry.note(f"{quote(alias.name)} is the model's own key; leave it out")
        elif alias.name in by_key:
            line = by_key[alias.name].entry.line
            alias.entry.note(f"{quote(alias.name)} names two models: line {line} has it as a key")
        elif first is not alias:
            alias.entry.note(
                f"{quote(alias.name)} names a model twice: line {first.entry.line} has it for"
                f" {quote(first.key)}"
            )
    _check_circles(by_key, aliases)
    _check_patterns(patterns)


def _check_circles(by_key: Mapping[str, ModelName], aliases: Sequence[ModelName]) -> None:
    lists: dict[str, list[str]] = defaultdict(list)
    for alias in aliases:
        if alias.name != alias.key:
            lists[alias.key].append(alias.name)
    try:
        TopologicalSorter(lists).prepare()
    except CycleError as error:
        # Each key is in the names of the one behind it.
        circle = error.args[1][::-1]
        way = " → ".join(map(quote, circle))
        by_key[circle[0]].entry.note(f"its names go in a circle: {way}")


def _check_patterns(patterns: Sequence[ModelName]) -> None:
    """Note patterns of one length that can mean one name: neither of them is the longest."""
    by_length: dict[int, list[ModelName]] = defaultdict(list)
    for pattern in sorted(patterns, key=lambda it: it.entry.line):
        others = by_length[len(pattern.name)]
        for other in others:
            if pattern.name != other.name and can_meet(pattern.name, other.name):
                pattern.entry.note(
                    f"{quote(pattern.name)} is as long as {quote(other.name)} in line"
                    f" {other.entry.line}, and both can mean one name: make one of them longer"
                )
                break
        others.append(pattern)
