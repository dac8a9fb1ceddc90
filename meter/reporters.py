"""Which producers have reported for which accounts, and whom the close of a month waits for."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol


class Reporter(NamedTuple):
    """A producer: the account whose API keys it uses ("" for the installation), and its name."""

    key_account: str
    producer: str


class Reporters(Protocol):
    """Knows whose reports may still come."""

    def waited_for(
        self, account_ids: Collection[str], *, start_ms: int, end_ms: int
    ) -> Mapping[str, Sequence[Reporter]]:
        """Return by account the producers that may still have usage of `[start_ms, end_ms)`.

        They are active and not at the edge, have reported for the account in a month (UTC) that
        the span touches, and were not heard after its end, or have batches that are not recorded.
        Of a span that began before it was noted who reports for whom, at an upgrade: those that may
        have, as they were heard since its begin. In order; accounts that wait for nobody are
        absent. Raises Unavailable.
        """
        ...
