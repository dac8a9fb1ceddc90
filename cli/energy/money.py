"""What a tier's usage comes to, beside the energy that was attributed to it."""

from decimal import Decimal
from typing import Final

from cli.connection import Client
from tokenworks.billing.v1.billing_service_pb2 import QueryRevenueRequest
from tokenworks.meter.v1 import energy_service_pb2 as pb

MJ_PER_MEGAWATT_HOUR: Final = 3_600_000_000_000
_CURRENCY: Final = "USD"


def find_revenue(client: Client, request: pb.QueryEfficiencyRequest) -> dict[str, Decimal]:
    """Return what the usage of each tier comes to, in US dollars."""
    question = QueryRevenueRequest(start_time=request.start_time, end_time=request.end_time)
    rows = client.billing.QueryRevenue(question).rows
    return {row.tier: Decimal(row.amount) for row in rows if row.currency == _CURRENCY}


def per_megawatt_hour(amount: Decimal | None, energy_mj: int) -> Decimal | None:
    """Return dollars a megawatt-hour; None where no energy or no money is known."""
    if amount is None or not energy_mj:
        return None
    return amount * MJ_PER_MEGAWATT_HOUR / energy_mj
