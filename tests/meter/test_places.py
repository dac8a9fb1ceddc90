"""The file of sources: what it may say, and what is wrong with it, by line."""

import pytest

from meter.sources.places import Places, read_places
from meter.toml_file import FileFaults

WHOLE = """
[defaults]
account = "acme"
tier = "free"
pool = "h100"
region = "eu-1"

[headers]
account = "x-tenant"

[accounts]
"Team A" = "team-a"

[tiers]
default = "medium"
"""


def test_read_places__of_an_empty_file() -> None:
    """A file without anything in it is as good as none."""
    assert read_places("") == Places()


def test_read_places__reads_each_table() -> None:
    """What is set is set, and the rest of a table keeps what holds without the file."""
    places = read_places(WHOLE)
    assert places.defaults.region == "eu-1"
    assert (places.headers.account, places.headers.tier) == ("x-tenant", "x-tokenworks-tier")
    assert places.accounts == {"Team A": "team-a"}


def test_to_dimensions__translates_and_fills() -> None:
    """Names of others stand for ours, unknown ones for themselves; defaults fill what is absent."""
    places = read_places(WHOLE)
    found = places.to_dimensions(model="glm", account="Team A", tier="default")
    assert (found.account, found.tier, found.pool) == ("team-a", "medium", "h100")
    found = places.to_dimensions(model="glm", account="other", region="us-1")
    assert (found.account, found.tier, found.region) == ("other", "free", "us-1")
    assert Places().to_dimensions(model="glm").account == ""


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[header]\naccount = 'x'", "1: header: no such key; here are defaults, headers,"),
        ("[headers]\n\nacount = 'x'", "3: headers.acount: no such key; here are account,"),
        ("[defaults]\ntier = 3", "2: defaults.tier: is a number, and must be a text in quotes"),
        ("defaults = 'acme'", "1: defaults: is a text, and must be a table"),
        ("[accounts]\nx = ['a']", "2: accounts.x: is a list, and must be a text in quotes"),
        ("[headers]\ntier = ''", "2: headers.tier: is empty"),
        (f"[accounts]\n{'x' * 257} = 'a'", "has a name of more than 256 characters"),
        ("[envoy]\naccount = 'x-tenant'", "2: envoy.account: is no place: header:NAME, tag:NAME,"),
        ("[envoy]\nmodel = 'header:X'", "2: envoy.model: names a header in capitals"),
        ("[envoy.ai_gateway]\nmodel = 'metadata:x'", "2: envoy.ai_gateway.model: has no key"),
        ("[otlp]\nunnamed = 'drop'", "2: otlp.unnamed: is neither 'set_aside' nor 'count'"),
        ("[defaults", "1: no TOML"),
    ],
)
def test_read_places__tells_what_is_wrong(text: str, fault: str) -> None:
    """Each fault is told with its line and its place."""
    with pytest.raises(FileFaults, match=fault.replace("[", r"\[")) as caught:
        read_places(text)
    assert caught.value.faults


def test_read_places__tells_all_faults_at_once() -> None:
    """A person who repairs the file hears of everything the first time."""
    with pytest.raises(FileFaults) as caught:
        read_places("[defaults]\ntier = 3\n[otlp]\nspan = 'x'\n")
    assert [fault.line for fault in caught.value.faults] == [2, 4]
