"""The dashboard "Customers and billing": who used what, and what it came to, from Postgres.

Its questions read the views that are open to the role `tokenworks_reader`, and nothing else.
"""

from typing import Final

from helm.dashboards.customers_billing import INVOICES, PRICES
from helm.dashboards.dashboard import Dashboard, Row
from helm.dashboards.panels import series, stat, table
from helm.dashboards.questions import AskedSql, Column
from helm.dashboards.variables import POSTGRES, PROMETHEUS, WINDOW, found

_TOKENS: Final = (
    "input + cache_read + cache_write_5m + cache_write_30m + cache_write_1h + cache_write_12h"
    " + output + reasoning + audio_input + audio_cache_read + audio_output"
    " + image_input + image_cache_read + image_output + video_input + video_output"
)
_OUTPUT: Final = "output + reasoning + audio_output + image_output + video_output"
_CHOSEN: Final = "$__timeFilter(day) AND handle IN (${customer:sqlstring})"
_HOURS: Final = "$__timeFilter(hour) AND boundary = 'board'"

_USAGE: Final = Row(
    title="Usage of the customers chosen above",
    heights=(4, 9, 11),
    panels=(
        stat(
            "Active customers",
            says="Accounts that used something in the time chosen.",
            asks=[
                AskedSql(sql=f"SELECT count(DISTINCT account_id) FROM usage_daily WHERE {_CHOSEN}")
            ],
            unit="none",
        ),
        stat(
            "Requests",
            says="Requests that they made, cancelled and failed ones included.",
            asks=[AskedSql(sql=f"SELECT sum(request_count) FROM usage_daily WHERE {_CHOSEN}")],
            unit="short",
        ),
        stat(
            "Tokens",
            says="Tokens of all classes, prompts included.",
            asks=[AskedSql(sql=f"SELECT sum({_TOKENS}) FROM usage_daily WHERE {_CHOSEN}")],
            unit="short",
        ),
        stat(
            "Output tokens",
            says="Tokens that were made for them, reasoning included.",
            asks=[AskedSql(sql=f"SELECT sum({_OUTPUT}) FROM usage_daily WHERE {_CHOSEN}")],
            unit="short",
        ),
        stat(
            "Energy",
            says="Energy of the boards that is attributed to their tokens, as far as it is known.",
            asks=[AskedSql(sql=f"SELECT sum(energy_mj) / 3.6e9 FROM usage_daily WHERE {_CHOSEN}")],
            unit="kwatth",
        ),
        stat(
            "Energy known, at most",
            says="The share of their output tokens that were served on days of which some energy is"
            " known, by model and tier: at most so much of it is measured.",
            asks=[
                AskedSql(
                    sql=f"SELECT sum({_OUTPUT}) FILTER (WHERE energy_mj IS NOT NULL)"
                    f" / nullif(sum({_OUTPUT}), 0) FROM usage_daily WHERE {_CHOSEN}"
                )
            ],
            unit="percentunit",
        ),
        series(
            "Tokens a day by tier",
            says="Tokens of all classes, by day in UTC.",
            asks=[
                AskedSql(
                    sql=f"""
SELECT day::timestamp AT TIME ZONE 'UTC' AS time, tier AS metric, sum({_TOKENS}) AS value
FROM usage_daily WHERE {_CHOSEN} GROUP BY 1, 2 ORDER BY 1, 2"""
                )
            ],
            unit="short",
            stacked=True,
            bars=True,
        ),
        series(
            "Tokens a day by customer",
            says="Tokens of all classes, by day in UTC; the ten greatest, the others together.",
            asks=[
                AskedSql(
                    sql=f"""
WITH used AS (
    SELECT day, account_id, handle, sum({_TOKENS}) AS tokens
    FROM usage_daily WHERE {_CHOSEN} GROUP BY 1, 2, 3
), ranked AS (
    SELECT account_id, rank() OVER (ORDER BY sum(tokens) DESC, account_id) AS place
    FROM used GROUP BY 1
)
SELECT day::timestamp AT TIME ZONE 'UTC' AS time,
       CASE WHEN place <= 10 THEN handle ELSE 'others' END AS metric, sum(tokens) AS value
FROM used JOIN ranked USING (account_id) GROUP BY 1, 2 ORDER BY 1, 2"""
                )
            ],
            unit="short",
            stacked=True,
            bars=True,
        ),
        table(
            "Customers",
            says="What each used in the time chosen. Energy is that of the boards, where it is"
            " known: of a customer whose pools are not measured all the time it is only a part.",
            asks=[
                AskedSql(
                    sql=f"""
SELECT handle AS "Customer", sum(request_count) AS "Requests", sum({_TOKENS}) AS "Tokens",
       sum({_OUTPUT}) AS "Output tokens", sum(delivered_output_count) AS "Delivered",
       sum(energy_mj) / 3.6e9 AS "Energy"
FROM usage_daily WHERE {_CHOSEN} GROUP BY account_id, handle ORDER BY 3 DESC LIMIT 100"""
                )
            ],
            columns=[
                Column(field="Customer", title="Customer"),
                Column(field="Requests", title="Requests", unit="short"),
                Column(field="Tokens", title="Tokens", unit="short", bar=True),
                Column(field="Output tokens", title="Output tokens", unit="short"),
                Column(field="Delivered", title="Delivered", unit="short"),
                Column(field="Energy", title="Energy", unit="kwatth", decimals=2),
            ],
            width=12,
        ),
        table(
            "Models",
            says="The same by what was sold: model and tier. What an output token takes is that of"
            " the whole factory, of the hours whose power is valid.",
            asks=[
                AskedSql(
                    sql=f"""
WITH used AS (
    SELECT model, tier, sum({_TOKENS}) AS tokens, sum(energy_mj) / 3.6e9 AS energy
    FROM usage_daily WHERE {_CHOSEN} GROUP BY 1, 2
), taken AS (
    SELECT model, tier,
           sum(valid_energy_mj) / 1e3 / nullif(sum(valid_output_tokens), 0) AS joules
    FROM efficiency_hourly WHERE {_HOURS} AND reason = '' GROUP BY 1, 2
)
SELECT model AS "Model", tier AS "Tier", tokens AS "Tokens", energy AS "Energy",
       joules AS "Per output token"
FROM used LEFT JOIN taken USING (model, tier) ORDER BY 3 DESC LIMIT 100"""
                )
            ],
            columns=[
                Column(field="Model", title="Model"),
                Column(field="Tier", title="Tier"),
                Column(field="Tokens", title="Tokens", unit="short", bar=True),
                Column(field="Energy", title="Energy", unit="kwatth", decimals=2),
                Column(field="Per output token", title="Per output token", unit="joule"),
            ],
            width=12,
        ),
    ),
)

_ENERGY: Final = Row(
    title="Energy of the whole factory, by the hour",
    heights=(9,),
    panels=(
        series(
            "Output tokens per joule by tier",
            says="Of the intervals whose power is valid, by the hour. Tokens and"
            " energy are those of the database, corrections included.",
            asks=[
                AskedSql(
                    sql=f"""
SELECT hour AS time, tier AS metric,
       1e3 * sum(valid_output_tokens) / nullif(sum(valid_energy_mj), 0) AS value
FROM efficiency_hourly WHERE {_HOURS} AND reason = '' GROUP BY 1, 2 ORDER BY 1, 2"""
                )
            ],
            unit="si:tok/J",
            last="2d",
        ),
        series(
            "Energy by what it was for",
            says="Each hour's energy of the boards: of tokens, or by the reason why it belongs to"
            " none. What is measured and not attributed yet is pending. The stack is what was"
            " measured.",
            asks=[
                AskedSql(
                    sql=f"""
SELECT hour AS time, CASE reason WHEN '' THEN 'tokens' ELSE reason END AS metric,
       sum(energy_mj) / 3.6e9 AS value
FROM efficiency_hourly WHERE {_HOURS} AND energy_mj IS NOT NULL GROUP BY 1, 2 ORDER BY 1, 2"""
                )
            ],
            unit="kwatth",
            stacked=True,
            bars=True,
            last="2d",
        ),
    ),
)

DASHBOARD: Final = Dashboard(
    uid="tokenworks-customers",
    title="Customers and billing",
    description="Who used what, what was invoiced for it, and what it took.",
    begin="now-90d",
    refresh="5m",
    variables=(
        PROMETHEUS,
        POSTGRES,
        found(
            "customer",
            label="Customer",
            sql="SELECT DISTINCT handle FROM usage_daily ORDER BY 1",
            several=True,
        ),
        found(
            "currency",
            label="Currency",
            sql="SELECT currency FROM invoices GROUP BY 1 ORDER BY count(*) DESC, 1",
            several=False,
        ),
        WINDOW,
    ),
    rows=(_USAGE, INVOICES, _ENERGY, PRICES),
)
