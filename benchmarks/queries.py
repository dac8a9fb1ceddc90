"""Rows of reading: what an account's month was, and what it will cost, of a real server."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final

import grpc
import psycopg

from benchmarks.measurement import Measurement, check_answer
from benchmarks.plant import Plant, running_plant
from benchmarks.workload import ACCOUNTS, MODELS, TIERS, account_name
from meter.domain.tokens import TokenClass
from tokenworks.billing.v1 import billing_service_pb2, billing_service_pb2_grpc
from tokenworks.meter.v1 import meter_service_pb2, meter_service_pb2_grpc

_LOADING_SECONDS_MAX: Final = 60.0
_FOLDING_SECONDS_MAX: Final = 240.0
_CALLS: Final = 200
_PREVIEWS: Final = 30
_SKUS: Final = [(model, tier) for model in MODELS for tier in TIERS]
_NAMES: Final = [token_class.name.lower() for token_class in TokenClass]
_COUNTS: Final = {"input": 900, "cache_read": 400, "output": 200}
_TOKENS: Final = sum(_COUNTS.values())
_BARE: Final = (
    "SELECT sku_id, band, sum(input), sum(cache_read), sum(output), sum(request_count) FROM usage"
    " WHERE account_id = %s AND interval_start >= %s AND interval_start < %s GROUP BY 1, 2"
)


def measure_account_month(seconds: float, *, accounts: int = ACCOUNTS) -> Measurement:
    """Ask for a month of one account by model and tier, over and over: the p95 of QueryUsage.

    So many accounts have used something in it, at most `ACCOUNTS`.
    """
    with running_plant() as plant:
        month = _last_month()
        rows = _load(plant, month, accounts=accounts, seconds=seconds)
        stub = meter_service_pb2_grpc.MeterServiceStub(grpc.insecure_channel(plant.target))

        def ask(account: str) -> None:
            request = meter_service_pb2.QueryUsageRequest(
                account=account,
                group_by=[
                    meter_service_pb2.GROUP_BY_MODEL,
                    meter_service_pb2.GROUP_BY_TIER,
                ],
            )
            request.start_time.FromDatetime(month[0])
            request.end_time.FromDatetime(month[1])
            answer = stub.QueryUsage(request, metadata=plant.metadata)
            counted = sum(it.count for row in answer.rows for it in row.tokens)
            check_answer(counted=counted, sent=rows // accounts * _TOKENS)

        p95_ms, median_ms = _time(ask, calls=_CALLS, accounts=min(_CALLS, accounts))
        bare_ms = _time_bare(plant, month, calls=_CALLS, accounts=min(_CALLS, accounts))
    return Measurement(
        value=p95_ms,
        bound=bare_ms,
        bound_of="p95 of the bare SELECT sum … GROUP BY over the account's rows of usage, ms",
        workload=f"{_CALLS} × QueryUsage by model and tier of one of {accounts:,} accounts, a month"
        f" of {rows:,} rows of usage ({rows // accounts:,} each, by SQL, folded by the server)",
        notes={"median_ms": median_ms, "rows": float(rows)},
    )


def measure_preview(seconds: float, *, accounts: int = ACCOUNTS) -> Measurement:
    """Preview the month that goes on, of one account at a time: the p95 of PreviewInvoice.

    So many accounts have used something in it, 30 to `ACCOUNTS`.
    """
    with running_plant() as plant:
        month = _last_month()
        rows = _load(plant, month, accounts=accounts, seconds=seconds)
        stub = billing_service_pb2_grpc.BillingServiceStub(grpc.insecure_channel(plant.target))
        _set_terms(stub, plant, start=month[0])
        name = f"{month[0]:%Y-%m}"

        def ask(account: str) -> None:
            request = billing_service_pb2.PreviewInvoiceRequest(
                account=account, month=name, format=billing_service_pb2.DOCUMENT_FORMAT_JSON
            )
            answer = stub.PreviewInvoice(request, metadata=plant.metadata)
            document = json.loads(answer.previews[0].document)
            counted = sum(int(line["quantity"]) for line in document["lines"])
            check_answer(counted=counted, sent=rows // accounts * _TOKENS)

        p95_ms, median_ms = _time(ask, calls=_PREVIEWS, accounts=_PREVIEWS)
        bare_ms = _time_bare(plant, month, calls=_PREVIEWS, accounts=_PREVIEWS)
    return Measurement(
        value=p95_ms,
        bound=bare_ms,
        bound_of="p95 of the bare SELECT sum … GROUP BY over the account's rows of usage, ms",
        workload=f"{_PREVIEWS} × PreviewInvoice of one of {accounts:,} accounts under contracts of"
        f" their own, a month of {rows:,} rows of usage ({rows // accounts:,} each)",
        notes={"median_ms": median_ms, "rows": float(rows)},
    )


def _last_month() -> tuple[datetime, datetime]:
    now = datetime.fromtimestamp(time.time(), UTC)
    end = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (end - timedelta(days=1)).replace(day=1), end


def _load(plant: Plant, month: tuple[datetime, datetime], *, accounts: int, seconds: float) -> int:
    """Put a month of usage down, a sku after the other while there is time; return the rows.

    Then wait until the server has folded it.
    """
    zeros = [name for name in _NAMES if name not in _COUNTS]
    columns = ", ".join([*_COUNTS, *zeros])
    values = ", ".join(map(str, [*_COUNTS.values(), *[0] * len(zeros)]))
    begin, rows = time.monotonic(), 0
    limit = min(_LOADING_SECONDS_MAX, 6 * seconds)
    with psycopg.connect(plant.database_url, autocommit=True) as connection:
        # Accounts and skus are there: the look at each of them would be most of the time.
        connection.execute("SET session_replication_role = replica")
        for number, (model, tier) in enumerate(_SKUS, start=1):
            connection.execute(
                "INSERT INTO skus (sku_id, model, served_model, tier, mode, region)"
                " OVERRIDING SYSTEM VALUE VALUES (%s, %s, '', %s, 1, '')",
                (number, model, tier),
            )
            if time.monotonic() - begin > limit * number / (number + 1):
                continue
            done = connection.execute(
                "INSERT INTO usage (account_id, interval_start, sku_id, band, finish_class,"  # noqa: S608
                f" cut_id, {columns}, request_count, delivered_output_count, estimated_count)"
                f" SELECT 'acct-' || lpad(a::text, 6, '0'), t, %s, 0, 1, 1, {values}, 3, 200, 0"
                " FROM generate_series(%s, %s - interval '1 s', interval '15 min') t,"
                f" generate_series(0, {accounts - 1}) a",
                (number, *month),
            )
            rows += done.rowcount
        connection.execute("VACUUM ANALYZE usage")
        # Nobody has counted these rows, so what the server folded before lacks them.
        with connection.transaction():
            connection.execute("LOCK TABLE totals_fold IN EXCLUSIVE MODE")
            connection.execute("DELETE FROM period_totals")
            connection.execute("UPDATE totals_fold SET folded_until = '2000-01-01Z'")
    _wait_until_folded(plant, month[1])
    return rows


def _wait_until_folded(plant: Plant, end: datetime) -> None:
    begin = time.monotonic()
    while plant.query("SELECT folded_until FROM totals_fold")[0] < end:
        if time.monotonic() > begin + _FOLDING_SECONDS_MAX:
            raise TimeoutError("folding did not catch up")
        time.sleep(0.2)


def _set_terms(stub: Any, plant: Plant, *, start: datetime) -> None:  # noqa: ANN401
    stub.ImportPriceBook(
        billing_service_pb2.ImportPriceBookRequest(shipped="keynote"), metadata=plant.metadata
    )
    calls = [
        stub.SetContract.future(
            billing_service_pb2.SetContractRequest(
                toml=_contract(account_name(number), start=start)
            ),
            metadata=plant.metadata,
        )
        for number in range(_PREVIEWS)
    ]
    for call in calls:
        call.result()


def _contract(account: str, *, start: datetime) -> str:
    return f"""
format = 1
contract = "{account}"
from = {start:%Y-%m-%dT%H:%M:%S}
zone = "UTC"
currency = "USD"
book = "keynote"
covers = ["{account}"]
seller = "factory"
buyer = "customer"
[parties.factory]
name = "Factory"
address = ["1 Substation Road"]
[parties.customer]
name = "Customer"
address = ["2 Substation Road"]
"""


def _time(ask: Callable[[str], None], *, calls: int, accounts: int) -> tuple[float, float]:
    """Return the p95 and the median of calls for accounts in turn, ms; the first ones warm up."""
    random, taken = Random(7), []
    for number in range(calls + 5):
        account = account_name(random.randrange(accounts))
        begin = time.perf_counter()
        ask(account)
        if number >= 5:
            taken.append(1_000 * (time.perf_counter() - begin))
    taken.sort()
    return taken[int(0.95 * len(taken))], taken[len(taken) // 2]


def _time_bare(
    plant: Plant, month: tuple[datetime, datetime], *, calls: int, accounts: int
) -> float:
    with psycopg.connect(plant.database_url) as connection:

        def ask(account: str) -> None:
            connection.execute(_BARE, (account, *month)).fetchall()

        return _time(ask, calls=calls, accounts=accounts)[0]
