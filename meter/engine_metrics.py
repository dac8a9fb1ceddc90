"""Metrics of what engines count themselves."""

from typing import Final

from meter.domain.metric import Entry
from meter.series import Exposition

ENGINE_TOKENS: Final = Entry(
    name="tokenworks_engine_tokens_total",
    kind="counter",
    unit="tokens",
    labels=("pool", "model", "kind"),
    meaning="Tokens that the engines of a pool counted themselves while they were read, by their"
    " own name of the model (empty where they tell none) and kind: prompt, uncached_prompt,"
    " output.",
)
ENGINE_READS_FAILED: Final = Entry(
    name="tokenworks_engine_reads_failed_total",
    kind="counter",
    unit="reads",
    labels=("pool", "reason"),
    meaning="Reads of an engine's page that gave nothing, by reason: unreachable, refused (not"
    " status 200), too_large, unreadable (a counter without sense), no_counters (no page of an"
    " engine that is known). Its counters hold what they count meanwhile.",
)
ENGINE_DRIFT_TOKENS: Final = Entry(
    name="tokenworks_engine_drift_tokens",
    kind="gauge",
    unit="tokens",
    labels=("pool", "model", "kind", "window"),
    meaning="Tokens that the engines of a pool counted, less those that were metered, in the last"
    " complete hour (window=1h) and day (1d) of UTC. Absent where less than nine tenths of it were"
    " read.",
)
ENGINE_DRIFT_PPM: Final = Entry(
    name="tokenworks_engine_drift_ppm",
    kind="gauge",
    unit="millionths",
    labels=("pool", "model", "kind", "window"),
    meaning="The same in millionths of the larger of both counts; below 0 where more was metered"
    " than the engines counted.",
)
CATALOGUE: Final = (
    ENGINE_TOKENS,
    ENGINE_READS_FAILED,
    ENGINE_DRIFT_TOKENS,
    ENGINE_DRIFT_PPM,
)


class EngineMetrics:
    """The catalogue's metrics on a page."""

    def __init__(self, page: Exposition) -> None:
        """Make them all."""
        self.tokens = page.counter(ENGINE_TOKENS)
        self.reads_failed = page.counter(ENGINE_READS_FAILED)
        self.drift_tokens = page.gauge(ENGINE_DRIFT_TOKENS)
        self.drift_ppm = page.gauge(ENGINE_DRIFT_PPM)
