"""What was seen of a run from moment to moment: rates of the last seconds, and curves of it all."""

import math
from collections import Counter, deque
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Final

from cli.simulate.site.orders import Progress
from cli.simulate.site.size import TIERS, Tier
from cli.simulate.site.watching import Counted, Energy

MJ_OF_MWH: Final = 3_600_000_000_000
MJ_OF_KWH: Final = 3_600_000_000
MJ_OF_JOULE: Final = 1_000
MILLION: Final = 1_000_000
HOUR_SECONDS: Final = 3_600
_SECOND_MS: Final = 1_000
# Rates of what the site tells are those of so many seconds.
_RATE_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """The run as the meter had it, just after counters of energy were read.

    `asked_ms` is when it was asked, `read_ms` when the counters were read. `ack_ms` is of the acks
    since the moment before.
    """

    asked_ms: int
    read_ms: int
    acknowledged_events: int
    counted: Counted
    energy: Energy
    ack_ms: Counter[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What happened from one moment to another: of one tier, or of all of them."""

    seconds: float
    energy_seconds: float
    events: int
    tokens: int
    output: int
    dollars: Decimal
    energy_mj: int

    @property
    def megawatts(self) -> float:
        """The mean power."""
        return self.energy_mj / MJ_OF_JOULE / self.energy_seconds / MILLION

    @property
    def tokens_per_joule(self) -> float:
        """Generated tokens by the joules of the time, 0 without energy."""
        watts = self.megawatts * MILLION
        return self.output / self.seconds / watts if watts else 0.0

    @property
    def dollars_per_hour(self) -> Decimal:
        """What the time's tokens would come to in an hour of them."""
        return self.dollars * HOUR_SECONDS * _SECOND_MS / round(self.seconds * _SECOND_MS)

    @property
    def dollars_per_mwh(self) -> Decimal:
        """What they come to by the energy of as long a time, 0 without energy."""
        hourly_mwh = Fraction(self.energy_mj * HOUR_SECONDS, MJ_OF_MWH) / Fraction(
            self.energy_seconds
        )
        if not hourly_mwh:
            return Decimal(0)
        return self.dollars_per_hour * hourly_mwh.denominator / hourly_mwh.numerator


class History:
    """Takes what the site tells, and what the meter answers."""

    def __init__(self) -> None:
        self.latest = Progress()
        """The newest word of the site."""
        self.moments: list[Moment] = []
        self.ack_ms: Counter[int] = Counter()
        """Of the whole run."""
        self._recent: deque[tuple[float, Progress]] = deque()
        self._ack_ms: Counter[int] = Counter()

    def told(self, progress: Progress, *, now: float) -> None:
        """Take what the site tells; `now` is of the monotonic clock."""
        self.latest = progress
        self.ack_ms.update(progress.ack_ms)
        self._ack_ms.update(progress.ack_ms)
        self._recent.append((now, progress))
        while self._recent[0][0] < now - _RATE_SECONDS:
            self._recent.popleft()

    def asked(self, counted: Counted, energy: Energy, *, asked_ms: int, read_ms: int) -> None:
        """Take what the meter answers."""
        self.moments.append(
            Moment(
                asked_ms=asked_ms,
                read_ms=read_ms,
                acknowledged_events=self.latest.acknowledged_events,
                counted=counted,
                energy=energy,
                ack_ms=self._ack_ms,
            )
        )
        self._ack_ms = Counter()

    @property
    def sent_per_second(self) -> float:
        """Events sealed a second, of late."""
        return self._recent_rate("sealed_events")

    @property
    def acknowledged_per_second(self) -> float:
        """Events acknowledged a second, of late."""
        return self._recent_rate("acknowledged_events")

    @property
    def recent_ack_ms(self) -> Counter[int]:
        """How long acks took of late."""
        recent: Counter[int] = Counter()
        for _, progress in self._recent:
            recent.update(progress.ack_ms)
        return recent

    def _recent_rate(self, name: str) -> float:
        if not self._recent:
            return 0.0
        (begin, first), (end, last) = self._recent[0], self._recent[-1]
        gained: int = getattr(last, name) - getattr(first, name)
        return gained / (end - begin) if end > begin else 0.0


def rates_between(before: Moment, after: Moment, tier: Tier | None = None) -> Rates:
    """Return what happened between two moments, of a tier and its boards, or of the site."""
    tiers = TIERS if tier is None else (tier,)
    gained = {
        each: after.counted.token_count(each.name) - before.counted.token_count(each.name)
        for each in tiers
    }
    change = after.energy.since(before.energy)
    return Rates(
        seconds=max(after.asked_ms - before.asked_ms, 1) / _SECOND_MS,
        energy_seconds=max(after.read_ms - before.read_ms, 1) / _SECOND_MS,
        events=sum(
            after.counted.events.get(each.name, 0) - before.counted.events.get(each.name, 0)
            for each in tiers
        ),
        tokens=sum(gained.values()),
        output=sum(
            after.counted.output_count(each.name) - before.counted.output_count(each.name)
            for each in tiers
        ),
        dollars=sum(
            (Decimal(each.price) * count / MILLION for each, count in gained.items()), Decimal(0)
        ),
        energy_mj=change.facility_mj if tier is None else change.pools_mj.get(tier.pool, 0),
    )


def percentile(ack_ms: Counter[int], part: float) -> int | None:
    """Return the whole milliseconds within which such a part of the acks came; None of none."""
    rank = math.ceil(part * ack_ms.total())
    for milliseconds in sorted(ack_ms):
        rank -= ack_ms[milliseconds]
        if rank <= 0:
            return milliseconds
    return None
