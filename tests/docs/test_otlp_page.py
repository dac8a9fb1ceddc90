"""The page of OpenTelemetry names what the tables have."""

from pathlib import Path

from meter.sources.dynamo import PROFILE as DYNAMO_PROFILE
from meter.sources.otlp_logs import ENVOY_PROFILE
from meter.sources.otlp_profiles import PROFILES

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "otlp.md"


def test_page__has_each_profile_with_its_counts() -> None:
    """Each table of spans and logs is on the page, under its version, with each name of a count."""
    text = PAGE.read_text("utf-8")
    for profile in PROFILES:
        assert f"`{profile.name}`" in text
        assert not [name for name in profile.counts if f"`{name}`" not in text]
    assert f"`{DYNAMO_PROFILE}`" in text
    assert f"`{ENVOY_PROFILE}`" in text
