"""A refresh as JSON, for programs."""

from datetime import UTC, datetime

from cli.top.counters import Rates, Report
from cli.top.reports import find_ages
from cli.top.watch import Frame


def to_json(frame: Frame, report: Report, *, url: str) -> dict[str, object]:
    """Return the rates of a refresh; what cannot be said is null, money is by currency."""
    latest = frame.samples[-1]
    return {
        "time": datetime.fromtimestamp(frame.time_ms // 1000, UTC).isoformat()[:19] + "Z",
        "metrics": url,
        "sandbox": latest.is_sandbox,
        "seconds": round(report.seconds, 3),
        "total": {**_rates(report.total), "attributed_ratio": report.attributed_ratio},
        "tiers": [{"tier": tier, **_rates(rates)} for tier, rates in sorted(report.tiers.items())],
        "pools": [
            {
                "pool": pool,
                **_rates(each.rates),
                "attributed_ratio": each.attributed_ratio,
                "power_valid": each.is_valid,
            }
            for pool, each in sorted(report.pools.items())
        ],
        "unpriced_tokens_per_second": report.unpriced_tokens_per_second,
        "counting_behind_seconds": latest.behind_seconds,
        "quarantine_held": latest.quarantine_held,
        "sources_heard_seconds_ago": find_ages(latest, now_ms=frame.time_ms),
        "engine_drifts": [
            {**drift._asdict(), "ppm": ppm} for drift, ppm in sorted(latest.drifts_ppm.items())
        ],
    }


def _rates(rates: Rates) -> dict[str, object]:
    return {
        "tokens_per_second": rates.tokens_per_second,
        "output_tokens_per_second": rates.output_tokens_per_second,
        "watts": rates.watts,
        "tokens_per_joule": rates.tokens_per_joule,
        "revenue_per_hour": dict(rates.revenue_per_hour),
        "revenue_per_mwh": dict(rates.revenue_per_mwh),
    }
