"""Where each source has the account, the tier and the rest: what an operator sets. Pure."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What a report gets that names none; an empty tier or account sets the event aside."""

    account: str = ""
    tier: str = ""
    pool: str = ""
    region: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """The file of sources, read; a table for each source is in its own module's words."""

    defaults: Defaults = field(default_factory=Defaults)
