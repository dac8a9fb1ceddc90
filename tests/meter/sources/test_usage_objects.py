"""What is kept of a usage object: enough to read it again, and not a word of anything else."""

import json
from typing import Any

import pytest

from meter.sources.usage_objects import kept
from tests.client.usage_cases import READ
from tokenworks.client.profiles import read_usage


@pytest.mark.parametrize("case", READ)
def test_kept__is_read_again(case: str) -> None:
    """What is kept of each provider's object reads as the object itself."""
    profile, usage, *_ = READ[case]
    assert read_usage(kept(usage), profile=profile) == read_usage(usage, profile=profile)


def _stuffed(value: Any) -> Any:  # noqa: ANN401
    """Return an object with a text in each place that there is, and under other names."""
    if isinstance(value, dict):
        stuffed = {name: _stuffed(part) for name, part in value.items()}
        return {**stuffed, "a secret": 7, "prompt": "a secret", "messages": [{"x": "a secret"}]}
    if isinstance(value, list):
        return [*map(_stuffed, value), "a secret", {"type": "a secret", "modality": "a secret"}]
    return "a secret"


@pytest.mark.parametrize("case", READ)
def test_kept__is_no_text(case: str) -> None:
    """Whatever an object holds instead of counts, nothing of it is kept."""
    _, usage, *_ = READ[case]
    assert "secret" not in json.dumps(kept(_stuffed(usage)))
