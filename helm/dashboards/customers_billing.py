"""The part of "Customers and billing" about money: invoices, and the prices in force."""

from typing import Final

from helm.dashboards.dashboard import Row
from helm.dashboards.panels import BAD_ABOVE_ZERO, bar_chart, series, stat, table
from helm.dashboards.questions import Asked, AskedSql, Column

# An account's invoices are found by its handle, which is in the view of usage alone.
_CHOSEN: Final = (
    "$__timeFilter(issue_time) AND currency = ${currency:sqlstring} AND account_id IN"
    " (SELECT account_id FROM usage_daily WHERE handle IN (${customer:sqlstring}))"
)

INVOICES: Final = Row(
    title="Invoices that were issued in the time chosen, in the currency chosen",
    heights=(4, 10, 10),
    panels=(
        stat(
            "Invoiced",
            says="The total of the invoices, in the currency chosen above.",
            asks=[AskedSql(sql=f"SELECT sum(total) FROM invoices WHERE {_CHOSEN}")],
            unit="none",
            width=6,
            decimals=2,
        ),
        stat(
            "Invoices",
            says="How many there are.",
            asks=[AskedSql(sql=f"SELECT count(*) FROM invoices WHERE {_CHOSEN}")],
            unit="none",
            width=6,
        ),
        stat(
            "Per million tokens",
            says="What a million billed tokens came to on the average, free ones included.",
            asks=[
                AskedSql(
                    sql="SELECT 1e6 * sum(billed) / nullif(sum(quantity), 0)"
                    " FROM invoice_lines JOIN invoices USING (number)"
                    f" WHERE {_CHOSEN}"
                )
            ],
            unit="none",
            width=6,
            decimals=4,
        ),
        stat(
            "Left over by rounding",
            says="Each line is rounded once. This is what all roundings came to together, exact"
            " minus billed: cents, and neither side's for long.",
            asks=[AskedSql(sql=f"SELECT sum(residue) FROM invoices WHERE {_CHOSEN}")],
            unit="none",
            width=6,
            decimals=4,
        ),
        bar_chart(
            "Invoiced by month",
            says="By the month in which the period began, in the contract's own time zone.",
            asks=[
                AskedSql(
                    sql=f"""
SELECT to_char(period_start AT TIME ZONE zone, 'YYYY-MM') AS "Month", sum(total) AS "Invoiced"
FROM invoices WHERE {_CHOSEN} GROUP BY 1 ORDER BY 1"""
                )
            ],
            columns=[
                Column(field="Month", title="Month"),
                Column(field="Invoiced", title="Invoiced"),
            ],
            unit="none",
            upright=True,
            decimals=0,
        ),
        table(
            "Invoices, newest first",
            says="As they stand in the books. `tokenworks invoices explain NUMBER` leads from a"
            " line to its events.",
            asks=[
                AskedSql(
                    sql=f"""
SELECT number AS "Number", contract AS "Contract", buyer AS "Buyer",
       to_char(period_start AT TIME ZONE zone, 'YYYY-MM') AS "Month",
       total AS "Total", line_count AS "Lines", to_char(due_date, 'YYYY-MM-DD') AS "Due",
       CASE WHEN sandbox THEN 'sandbox' ELSE '' END AS "Not real"
FROM invoices WHERE {_CHOSEN} ORDER BY issue_time DESC, number DESC LIMIT 100"""
                )
            ],
            columns=[
                Column(field="Number", title="Number"),
                Column(field="Contract", title="Contract"),
                Column(field="Buyer", title="Buyer"),
                Column(field="Month", title="Month"),
                Column(field="Total", title="Total", unit="none", decimals=2, bar=True),
                Column(field="Lines", title="Lines", unit="none"),
                Column(field="Due", title="Due"),
                Column(field="Not real", title="Not real"),
            ],
            width=16,
        ),
        bar_chart(
            "Invoiced by tier",
            says="What the lines of each tier came to.",
            asks=[
                AskedSql(
                    sql=f"""
SELECT tier AS "Tier", sum(billed) AS "Invoiced"
FROM invoice_lines JOIN invoices USING (number) WHERE {_CHOSEN} GROUP BY 1 ORDER BY 2 DESC"""
                )
            ],
            columns=[
                Column(field="Tier", title="Tier"),
                Column(field="Invoiced", title="Invoiced"),
            ],
            unit="none",
            decimals=0,
        ),
        table(
            "Lines that weigh most",
            says="Lines of all these invoices with one model, tier, token class and price, added"
            " up.",
            asks=[
                AskedSql(
                    sql=f"""
SELECT model AS "Model", tier AS "Tier", lower(token_class) AS "Token class",
       unit_price AS "Per million", sum(quantity) AS "Tokens", sum(billed) AS "Invoiced"
FROM invoice_lines JOIN invoices USING (number) WHERE {_CHOSEN}
GROUP BY 1, 2, 3, 4 ORDER BY 6 DESC LIMIT 50"""
                )
            ],
            columns=[
                Column(field="Model", title="Model"),
                Column(field="Tier", title="Tier"),
                Column(field="Token class", title="Token class"),
                Column(field="Per million", title="Per million", unit="none", decimals=2),
                Column(field="Tokens", title="Tokens", unit="short"),
                Column(field="Invoiced", title="Invoiced", unit="none", decimals=2, bar=True),
            ],
            width=16,
        ),
    ),
)

PRICES: Final = Row(
    title="Now, from the meter",
    heights=(9, 9),
    panels=(
        series(
            "Revenue an hour by tier",
            says="What counted tokens come to at their contracts' prices, in the currency chosen."
            " No invoice is made of it.",
            asks=[
                Asked(
                    expr="3600 * sum by (tier)"
                    ' (rate(tokenworks_revenue_total{currency="$currency"}[$window]))',
                    legend="{{tier}}",
                )
            ],
            unit="none",
            last="1h",
        ),
        series(
            "Revenue an hour by pool",
            says="The same by the pool that served the tokens.",
            asks=[
                Asked(
                    expr="3600 * sum by (pool)"
                    ' (rate(tokenworks_revenue_total{currency="$currency"}[$window]))',
                    legend="{{pool}}",
                )
            ],
            unit="none",
            last="1h",
        ),
        table(
            "Prices in force",
            says="Per million tokens, as the books have them that contracts name.",
            asks=[
                Asked(
                    expr="max by (currency, model, tier, token_class)"
                    " (tokenworks_price_per_million_tokens)",
                    legend="price",
                )
            ],
            columns=[
                Column(field="model", title="Model"),
                Column(field="tier", title="Tier"),
                Column(field="token_class", title="Token class"),
                Column(field="currency", title="Currency"),
                Column(field="Value", title="Per million", unit="none", decimals=2, bar=True),
            ],
            width=10,
            by="Per million",
        ),
        series(
            "Tokens of the greatest customers",
            says="Tokens a second of the customers that used most in the last hour. Off until"
            " TOKENWORKS_CUSTOMER_METRICS_MAX says how many; the others are `__other__`.",
            asks=[
                Asked(
                    expr="sum by (customer) (rate(tokenworks_customer_tokens_total[$window]))",
                    legend="{{customer}}",
                )
            ],
            unit="si:tok/s",
            width=8,
            stacked=True,
            legend="bottom",
            last="1h",
        ),
        stat(
            "Tokens without a price",
            says="A second, by model and tier. They hold the invoices of whoever used them until"
            " the book has a price; free is a price of 0.",
            asks=[
                Asked(
                    expr="sum by (model, tier) (rate(tokenworks_unpriced_tokens_total[$window]))"
                    " > 0 or on () vector(0)",
                    legend="{{model}} {{tier}}",
                )
            ],
            unit="si:tok/s",
            width=6,
            steps=BAD_ABOVE_ZERO,
        ),
    ),
)
