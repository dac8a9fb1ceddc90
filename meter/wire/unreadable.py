"""Reports that nobody can read: counted each, and told of now and then."""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from meter.metrics import Metrics
from meter.sources.observation import Source, Unreadable

_log = logging.getLogger(__name__)
# A fault of a source is logged once in so many seconds.
_TOLD_SECONDS: Final = 60.0
# Faults are texts of ours, a few for each source.
_FAULTS_MAX: Final = 1_000


class UnreadableReports:
    """Notes reports of which no event could be made; nothing of what was sent is told."""

    def __init__(self, metrics: Metrics, *, monotonic_seconds: Callable[[], float]) -> None:
        """Take where they are counted, and a clock that never goes back."""
        self._metrics = metrics
        self._monotonic_seconds = monotonic_seconds
        self._told: dict[tuple[Source, str], float] = {}

    def note(self, source: Source, reports: Sequence[Unreadable]) -> None:
        """Count reports of a source, and log each fault that was not logged lately."""
        name, now = source.name.lower(), self._monotonic_seconds()
        for fault, count in Counter(report.reason for report in reports).items():
            self._metrics.reports_unreadable.labels(name).inc(count)
            told = self._told.get((source, fault))
            if told is None or now - told > _TOLD_SECONDS:
                if len(self._told) >= _FAULTS_MAX:
                    self._told.clear()
                self._told[source, fault] = now
                extra = {"source": name, "fault": fault, "count": count}
                _log.warning("reports_unreadable", extra=extra)
