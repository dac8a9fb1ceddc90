"""EnergyService as a caller with an API key sees it."""

from typing import Any

import psycopg

from tests.running_meter import RunningMeter
from tests.wire.session import CALL_SECONDS_MAX, Session
from tests.wire.talk import wait_until
from tokenworks.meter.v1 import energy_service_pb2 as pb
from tokenworks.meter.v1.energy_service_pb2_grpc import EnergyServiceStub

EDGE_MS = 900_000
# Reports lie no further apart, or there is a gap between them.
_STEP_MS = 300_000


class EnergyCaller:
    """Calls with an API key, the installation's unless given."""

    def __init__(self, meter: RunningMeter, *, api_key: str | None = None) -> None:
        self.session = Session(meter, api_key=api_key)
        self._database_url = meter.database_url
        self._stub = EnergyServiceStub(self.session.channel)
        self._options: dict[str, Any] = {
            "metadata": self.session.metadata,
            "timeout": CALL_SECONDS_MAX,
            "wait_for_ready": True,
        }

    def record(self, *readings: pb.EnergyReading) -> tuple[int, int]:
        """Record readings; return how many added something, and how many did not."""
        answer = self._stub.RecordEnergy(pb.RecordEnergyRequest(readings=readings), **self._options)
        return answer.recorded_count, answer.ignored_count

    def measure(self, energy_mj: int, *, start_ms: int, pool: str = "h100") -> None:
        """Report so much energy within an interval, by a device of its own."""
        device = f"of {pool} and {start_ms}"
        steps = EDGE_MS // _STEP_MS
        self.record(
            *(
                reading(
                    energy_mj * place // steps,
                    time_ms=start_ms + place * _STEP_MS,
                    pool=pool,
                    device=device,
                )
                for place in range(steps + 1)
            )
        )

    def ask(
        self,
        *groups: str,
        start_ms: int,
        end_ms: int,
        **changes: Any,  # noqa: ANN401
    ) -> pb.QueryEfficiencyResponse:
        """Ask for tokens and energy in a span, split by the names of groups."""
        numbers: list[Any] = [
            pb.EfficiencyGroupBy.Value(f"EFFICIENCY_GROUP_BY_{group}") for group in groups
        ]
        request = pb.QueryEfficiencyRequest(group_by=numbers, **changes)
        request.start_time.FromMilliseconds(start_ms)
        request.end_time.FromMilliseconds(end_ms)
        answer: pb.QueryEfficiencyResponse = self._stub.QueryEfficiency(request, **self._options)
        return answer

    def ask_raw(self, request: pb.QueryEfficiencyRequest) -> None:
        """Ask whatever it is."""
        self._stub.QueryEfficiency(request, **self._options)

    def sources(self) -> pb.ListEnergySourcesResponse:
        """List sources."""
        answer: pb.ListEnergySourcesResponse = self._stub.ListEnergySources(
            pb.ListEnergySourcesRequest(), **self._options
        )
        return answer

    def wait_until_attributed(self, *, start_ms: int, end_ms: int) -> pb.QueryEfficiencyResponse:
        """Return the answer by pool and tier once nothing of a span is pending, or to be done anew.

        What was attributed to nobody because its tokens were not counted yet is pending no more.
        """

        def is_done() -> bool:
            if self._is_due(start_ms=start_ms, end_ms=end_ms):
                return False
            answer = self.ask(start_ms=start_ms, end_ms=end_ms)
            pending = pb.UNATTRIBUTED_REASON_PENDING
            return bool(answer.pools) and not any(
                it.reason == pending for pool in answer.pools for it in pool.unattributed
            )

        wait_until(is_done)
        return self.ask("POOL", "TIER", start_ms=start_ms, end_ms=end_ms)

    def _is_due(self, *, start_ms: int, end_ms: int) -> bool:
        question = (
            "SELECT 1 FROM pool_intervals WHERE version <> attributed_version"
            " AND interval_start >= to_timestamp(%s) AND interval_start < to_timestamp(%s)"
        )
        with psycopg.connect(self._database_url, autocommit=True) as connection:
            span = (start_ms // 1000, end_ms // 1000)
            return connection.execute(question, span).fetchone() is not None


def reading(
    counter_mj: int,
    *,
    time_ms: int,
    pool: str = "h100",
    device: str | None = None,
    **changes: Any,  # noqa: ANN401
) -> pb.EnergyReading:
    """Return a reading; by itself a pool has one device, of its own name."""
    message = pb.EnergyReading(
        pool=pool,
        device=f"GPU of {pool}" if device is None else device,
        counter_mj=counter_mj,
        **changes,
    )
    message.time.FromMilliseconds(time_ms)
    return message
