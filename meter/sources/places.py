"""Where each source has the account, the tier and the rest: what an operator sets. Pure.

Each table of the file is a class, each key a field of it: whose type says how it is written (a
text, a list of texts, names and what they stand for), whose `fault` in the field's metadata checks
a text, and whose default is what holds without it. `docs/reference/sources-file.md` explains them.
"""

from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final, TypeVar

from meter.domain.event import Dimensions
from meter.domain.limits import (
    ACCOUNT_CHARS_MAX,
    LIST_ENTRIES_MAX,
    PLACE_CHARS_MAX,
    SOURCE_NAME_CHARS_MAX,
)
from meter.sources.envoy_places import EnvoyPlaces
from meter.toml_file import Entry, TomlFile
from tokenworks.client.litellm_payload import LiteLlmPlaces

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_ONLINE: Final = 1
_SESSION_IDS: Final = ("none", "session_id", "parent_session_id")
_Kind = TypeVar("_Kind", bound="DataclassInstance")


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What a report gets that names none; an empty tier or account sets the event aside."""

    account: str = ""
    tier: str = ""
    pool: str = ""
    region: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderPlaces:
    """Headers of a request to an engine or gateway, in small letters, wherever they are logged."""

    account: str = "x-tokenworks-account"
    tier: str = "x-tokenworks-tier"
    pool: str = "x-tokenworks-pool"
    region: str = "x-tokenworks-region"
    request_id: str = "x-request-id"


SET_ASIDE: Final = "set_aside"
COUNT: Final = "count"


def verdict_fault(word: str) -> str | None:
    """Return what is wrong with a word that says what becomes of reports, None where nothing is."""
    return None if word in (SET_ASIDE, COUNT) else f"is neither {SET_ASIDE!r} nor {COUNT!r}"


@dataclass(frozen=True, slots=True, kw_only=True)
class OtlpPlaces:
    """A member of `tracestate`, `ACCOUNT:TIER:REQUEST`, and attributes of the resource.

    `unnamed` says what becomes of spans that engines give an id of their own where the edge does
    not name the request, and `litellm` what becomes of LiteLLM's: other reports of the same
    requests cannot be told from them. Where its spans are counted, LiteLLM's records are not.
    `unseen` says what becomes of spans that are read by a table which was never seen to be right.
    """

    tracestate: str = "tokenworks"
    account: str = "tokenworks.account"
    tier: str = "tokenworks.tier"
    pool: str = "tokenworks.pool"
    region: str = "tokenworks.region"
    model: str = "tokenworks.model"
    unnamed: str = field(default=SET_ASIDE, metadata={"fault": verdict_fault})
    litellm: str = field(default=SET_ASIDE, metadata={"fault": verdict_fault})
    unseen: str = field(default=SET_ASIDE, metadata={"fault": verdict_fault})


def _session_fault(place: str) -> str | None:
    return None if place in _SESSION_IDS else f"is none of {', '.join(_SESSION_IDS)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DynamoPlaces:
    """Which of Dynamo's ids of a session the edge writes `ACCOUNT` or `ACCOUNT:TIER` into.

    Dynamo has no other place for it. Without one, an account comes from the defaults alone.
    """

    account: str = field(default="none", metadata={"fault": _session_fault})


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudEventPlaces:
    """Fields of a CloudEvent's `data`, of all types but our own.

    `kinds` says which class of tokens a word of the field `kind` stands for, besides those that are
    known; `profiles` of which types the data is a provider's usage object, and whose.
    """

    model: str = "model"
    tokens: str = "tokens"
    kind: str = "type"
    tier: str = "tier"
    pool: str = "pool"
    region: str = "region"
    kinds: Mapping[str, str] = field(default_factory=dict)
    profiles: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """The file of sources, read; a table for each source is in its own module's words.

    `accounts` and `tiers` say what somebody else's names stand for here; a name that is not among
    them stands for itself.
    """

    defaults: Defaults = field(default_factory=Defaults)
    headers: HeaderPlaces = field(default_factory=HeaderPlaces)
    otlp: OtlpPlaces = field(default_factory=OtlpPlaces)
    dynamo: DynamoPlaces = field(default_factory=DynamoPlaces)
    cloud_events: CloudEventPlaces = field(default_factory=CloudEventPlaces)
    envoy: EnvoyPlaces = field(default_factory=EnvoyPlaces)
    litellm: LiteLlmPlaces = field(default_factory=LiteLlmPlaces)
    accounts: Mapping[str, str] = field(default_factory=dict)
    tiers: Mapping[str, str] = field(default_factory=dict)

    def to_dimensions(
        self,
        *,
        model: str,
        served_model: str = "",
        account: str = "",
        tier: str = "",
        mode: int = _ONLINE,
        pool: str = "",
        region: str = "",
    ) -> Dimensions:
        """Return dimensions: names translated, and the defaults where a text is empty."""
        defaults = self.defaults
        return Dimensions(
            account=self.accounts.get(account, account) or defaults.account,
            model=model,
            served_model=served_model,
            tier=self.tiers.get(tier, tier) or defaults.tier,
            mode=mode,
            pool=pool or defaults.pool,
            region=region or defaults.region,
        )


def read_places(text: str) -> Places:
    """Read the file; raises `meter.toml_file.FileFaults` with all that is wrong with it."""
    file = TomlFile(text)
    places = _read_table(file.root, Places)
    file.check()
    return places


def _read_table(entry: Entry, kind: type[_Kind]) -> _Kind:
    """Read a table by its class; a field's `fault` says what is wrong with a text of it."""
    known = {each.name: each for each in fields(kind)}
    table = entry.table(known=known)
    values: dict[str, object] = {}
    for key, found in ({} if table is None else table.entries).items():
        values[key] = _read_value(found, known[key])
    return kind(**{key: value for key, value in values.items() if value is not None})


def _read_value(entry: Entry, place: "Field[Any]") -> object:
    if place.type is str:
        return _read_text(entry, place)
    if place.type == tuple[str, ...]:
        texts = [_read_text(each, place) for each in entry.distinct()]
        return tuple(text for text in texts if text is not None) or None
    if place.type == Mapping[str, str]:
        return _read_names(entry)
    assert isinstance(place.type, type), "a table is a class"
    return _read_table(entry, place.type)


def _read_text(entry: Entry, place: "Field[Any]") -> str | None:
    text = entry.text(chars_max=PLACE_CHARS_MAX)
    find_fault = place.metadata.get("fault")
    fault = None if text is None or find_fault is None else find_fault(text)
    if fault is not None:
        entry.note(fault)
        return None
    return text


def _read_names(entry: Entry) -> Mapping[str, str] | None:
    """Return what names stand for; at most so many as a list may have."""
    table = entry.table()
    if table is None:
        return None
    if len(table.entries) > LIST_ENTRIES_MAX:
        entry.note(f"has more than {LIST_ENTRIES_MAX:,} entries")
        return None
    read = {name: it.text(chars_max=ACCOUNT_CHARS_MAX) for name, it in table.entries.items()}
    for name, it in table.entries.items():
        if len(name) > SOURCE_NAME_CHARS_MAX:
            it.note(f"has a name of more than {SOURCE_NAME_CHARS_MAX} characters")
    return {name: text for name, text in read.items() if text is not None}
