"""What the demo found, as JSON for whoever checks it."""

import json
from collections.abc import Sequence
from pathlib import Path

from cli.demo.bills import Bill
from cli.demo.check import Verdict, as_money, to_tree
from cli.demo.power import Energy, TierPower, rank


def write_summary(
    path: Path,
    *,
    verdict: Verdict,
    bills: Sequence[Bill],
    energy: Energy,
    tiers: Sequence[TierPower],
    kill_count: int,
    resent_count: int,
) -> None:
    """Write the summary: tokens as integers, money and ratios as decimals in strings."""
    summary = {
        "events": verdict.sent.request_count,
        "sent": to_tree(verdict.sent.tokens),
        "counted": to_tree(verdict.counted.tokens),
        "billed": to_tree(verdict.billed),
        "money": as_money(verdict.money),
        "oracle_money": as_money(verdict.oracle_money),
        "invoices": [
            {
                "number": bill.number,
                "account": bill.account,
                "currency": bill.currency,
                "total": bill.total,
                "lines": len(bill.lines),
            }
            for bill in bills
        ],
        "energy_mj": {
            "measured": energy.measured_mj,
            "attributed": energy.attributed_mj,
            "unattributed": energy.unattributed_total_mj,
        },
        "tokens_per_joule": {it.tier: it.tokens_per_joule for it in tiers},
        "usd_per_mwh": {it.tier: it.usd_per_mwh for it in tiers},
        "unattributed_mj": dict(sorted(energy.unattributed_mj.items())),
        "ranking": [
            {
                "tier": it.tier.tier,
                "pool": it.tier.pool,
                "usd_per_mwh": it.tier.usd_per_mwh,
                "tokens_per_joule": it.tier.tokens_per_joule,
                "power_share": it.power_share,
                "revenue_share": it.revenue_share,
            }
            for it in rank(tiers)
        ],
        "kills": kill_count,
        "resent": resent_count,
        "lost": verdict.lost,
        "doubled": verdict.doubled,
    }
    path.write_text(json.dumps(summary, indent=2) + "\n", "utf-8")
