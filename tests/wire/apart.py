"""Sessions of tests that share a meter: each has accounts and producers that no other one has."""

from typing import Any

from tests.running_meter import RunningMeter
from tests.wire import session
from tests.wire.session import Session
from tokenworks.meter.v1 import meter_service_pb2, usage_pb2

PAGE_SIZE = 1_000


class Apart(Session):
    """A session that gives accounts and producers, by their short names, names of its own.

    `number` is the test's: two of the same number mean the same accounts and producers.
    """

    def __init__(self, meter: RunningMeter, *, number: int, api_key: str | None = None) -> None:
        super().__init__(meter, api_key=api_key)
        self._number = number
        self._end = f"-{number}"

    def own(self, name: str) -> str:
        """Return the name that stands for a short one; nothing stands for nothing."""
        return name and name + self._end

    def with_key(self, api_key: str) -> "Apart":
        """Return a session with another key, of the same test."""
        return Apart(self.meter, number=self._number, api_key=api_key)

    def create_account(self, account: str, *, parent: str = "") -> str:
        """Create an account; return its id."""
        return super().create_account(self.own(account), parent=self.own(parent))

    def event(self, account: str = "acme", **changes: Any) -> usage_pb2.UsageEvent:  # noqa: ANN401
        """Return a valid event of an account."""
        return session.event(self.own(account), **changes)

    def instead(self, account: str = "acme", **changes: Any) -> usage_pb2.UsageEvent:  # noqa: ANN401
        """Return an event that may replace another: it has no id."""
        return self.event(account, event_id="", **changes)

    def opening(
        self, producer: str = "p1", *, instance: bytes = b"i" * 16, first_sequence: int = 0
    ) -> meter_service_pb2.StreamUsageRequest:
        """Return an OpenStream of a producer."""
        return session.opening(self.own(producer), instance=instance, first_sequence=first_sequence)

    def counted(self) -> dict[tuple[str, str, int], int]:
        """Return what is counted for the test's accounts, under their short names."""
        return {
            (account.removesuffix(self._end), tier, token_class): count
            for (account, tier, token_class), count in super().counted().items()
            if self._is_own(account)
        }

    def corrections(self) -> list[meter_service_pb2.Correction]:
        """Return the corrections of events of the test's accounts."""
        request = meter_service_pb2.ListCorrectionsRequest(page_size=PAGE_SIZE)
        page = self.call("ListCorrections", request)
        assert not page.next_page_token
        return [it for it in page.corrections if self._is_own(it.before.dimensions.account)]

    def quarantine(self, **changes: Any) -> list[meter_service_pb2.QuarantineEntry]:  # noqa: ANN401
        """Return what the test's producers and accounts have in quarantine."""
        request = meter_service_pb2.ListQuarantineRequest(page_size=PAGE_SIZE, **changes)
        page = self.call("ListQuarantine", request)
        assert not page.next_page_token
        return [
            it
            for it in page.entries
            if self._is_own(it.producer) or self._is_own(it.event.dimensions.account)
        ]

    def _is_own(self, name: str) -> bool:
        return name.endswith(self._end)
