"""Writes the pages of `docs/reference/` that are made from the code, so that they cannot lie.

python docs/generate.py          writes them
python docs/generate.py --check  exits 1 and names those that are not fresh
"""

import argparse
import dataclasses
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from google.protobuf import descriptor_pb2

import billing.metrics
import meter.metrics
from docs.pages.access import make_access_page
from docs.pages.log_events import make_log_events_page
from docs.pages.page import codes, make_page, make_table
from docs.pages.settings import make_settings_page
from meter.domain.limits import SERIES_MAX

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference"
_CONTRACT = "tokenworks/meter/v1"
_BILLING_CONTRACT = "tokenworks/billing/v1"


def main() -> int:
    """Write or check the pages; the exit code is 1 when a checked page is not fresh."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--check", action="store_true", help="name the pages that are not fresh")
    check = parser.parse_args().check
    stale = [name for name, text in make_pages() if not is_fresh(name, text=text)]
    if check:
        for name in stale:
            sys.stderr.write(f"docs/reference/{name} is not fresh: make docs\n")
        return 1 if stale else 0
    for name, text in make_pages():
        (REFERENCE / name).write_text(text, encoding="utf-8")
    return 0


def make_pages() -> Iterator[tuple[str, str]]:
    """Each page's file name and text."""
    pages: dict[str, Callable[[], str]] = {
        "access.md": make_access_page,
        "log-events.md": make_log_events_page,
        "metrics.md": make_metrics_page,
        "outcomes.md": make_outcomes_page,
        "settings.md": make_settings_page,
    }
    for name, make in pages.items():
        yield name, make()


def is_fresh(name: str, *, text: str) -> bool:
    """Whether the page in the tree is this text."""
    path = REFERENCE / name
    return path.exists() and path.read_text(encoding="utf-8") == text


def make_metrics_page() -> str:
    """The Prometheus metrics, one row each."""
    rows = [
        (
            f"`{metric.name}`",
            metric.kind,
            metric.unit,
            codes(metric.labels),
            metric.over_servers,
            metric.meaning,
        )
        for metric in (*meter.metrics.CATALOGUE, *billing.metrics.CATALOGUE)
    ]
    return make_page(
        "Metrics",
        source="`meter/metrics.py` and `billing/metrics.py`",
        body=[
            _SERVED,
            make_table(("Name", "Kind", "Unit", "Labels", "Over servers", "Meaning"), rows),
            _BOUNDS,
            _RECORDED,
            _OTHER_NAMES,
        ],
    )


_SERVED = """\
Served at `/metrics` of the HTTP port in the Prometheus text form. *Over servers* says how the \
values of [several meters](../operating/replicas.md) make one: what each did is added up, of what \
each shows alike one value is taken."""
_BOUNDS = f"""\
Labels whose values come from producers are bounded: at most {SERIES_MAX:,} label sets of a metric \
have all their names, and what comes then is added up under `__other__`. Five tiers, four models \
and four pools, all mixed, make less than 1,000 series; \
[50 pools and 20 models](../decisions/0014-label-sets-are-bounded.md) many more."""
_RECORDED = """\
## Recorded series

The [chart's rules](../operating/kubernetes.md#rules) record these over 5 minutes and over an hour \
(`rate1h`). Each series of energy has its `boundary`: `board`, `host` or `facility`, of which no \
two are ever added up. A ratio covers the pools whose power was valid all the while; where there \
is none, there is no ratio. A pool whose energy comes less than three times a window has no \
power over it. While an hour has not been scraped yet, powers over an hour are too low; ratios are \
not.

| Series | Labels | Meaning |
| --- | --- | --- |
| `{pool_tier,tier}:tokenworks_output_tokens:rate5m` | `pool`, `tier` | Output tokens a second, \
reasoning included. |
| `{pool_tier,tier}:tokenworks_total_tokens:rate5m` | `pool`, `tier` | Tokens a second of all \
kinds. |
| `pool:tokenworks_power_watts:rate5m` | `pool`, `boundary` | Watts of a pool. At facility: of \
its hosts, or of its boards where not all hosts are measured, times the PUE of its site. |
| `{pool_tier,tier,site_tier}:tokenworks_power_watts:rate5m` | `pool`, `site`, `tier`, `boundary` \
| Watts that were attributed to a tier. |
| `site:tokenworks_power_watts:rate5m` | `site`, `boundary` | Watts of a site's pools; at \
facility by its own meter, where it has one. |
| `site:tokenworks_pue:ratio_rate5m` | `site`, `basis` | PUE: measured where the site's meter \
reports four times a window and all its pools are valid, else configured. |
| `site:tokenworks_power_budget:ratio_rate5m` | `site`, `boundary` | What of its contract a site \
draws. `boundary` is `it` where no PUE is known: it draws more. |
| `site:tokenworks_power_headroom_watts:rate5m` | `site`, `boundary` | What is left of the \
contract. Absent while some pool's power is not known and no meter of the site reads. |
| `{pool,site}:tokenworks_energy_attributed:ratio_rate5m` | `pool`, `site`, `boundary` | What of \
the measured energy served somebody's tokens. |
| `{pool_tier,tier,pool,factory}:tokenworks_tokens_per_joule:ratio_rate5m` | `pool`, `tier`, \
`boundary` | Output tokens per joule, which is tokens a second per watt. |
| `{tier,factory}:tokenworks_total_tokens_per_joule:ratio_rate5m` | `tier`, `boundary` | Tokens \
of all kinds per joule. |
| `tier:tokenworks_joules_per_output_token:ratio_rate5m` | `tier`, `boundary` | Joules per output \
token. |
| `{pool_tier,tier,pool,factory}:tokenworks_usd_per_megawatt_hour:ratio_rate5m` | `pool`, `tier`, \
`boundary` | Revenue in US dollars per megawatt-hour. What is sold in other currencies brings \
none of it, and takes its energy all the same. |
| `tier:tokenworks_power:share_rate5m` | `tier`, `boundary` | What share a tier takes of the power \
that is attributed and valid. |
| `tier:tokenworks_revenue:share_rate5m` | `tier` | What share of all revenue in US dollars a \
tier brings. |"""
_OTHER_NAMES = """\
## Other names

A catalogue for token factories that was drawn up before this one (prefix `tokenmeter_`) has other \
names for some of these.

| There | Here |  |
| --- | --- | --- |
| `tokens_total{token_type}` | `tokenworks_tokens_total` | by `token_class`, of which there are \
more than three |
| `reasoning_tokens_total` | `tokenworks_tokens_total` | the class `REASONING` |
| `requests_total{outcome}` | `tokenworks_requests_total` | by `finish` |
| `usage_reports_total{result}` | `tokenworks_events_total` | by `outcome` |
| `report_lag_seconds` | `tokenworks_report_lag_seconds` | until it is counted |
| `revenue_usd_total` | `tokenworks_revenue_total` | by `currency`, at contract prices |
| `price_usd_per_million_tokens` | `tokenworks_price_per_million_tokens` | by `currency` |
| `energy_joules_total{component}` | `tokenworks_energy_joules_total` | by `boundary`; a site is \
`tokenworks_site_energy_joules_total`, and no switches are measured |
| `energy_estimated_joules_total` | `tokenworks_energy_estimated_joules_total` | what PUE adds is \
recorded, not counted |
| `energy_attributed_joules_total` | `tokenworks_energy_attributed_joules_total` | with `pool` |
| `energy_unattributed_joules_total` | `tokenworks_energy_unattributed_joules_total` |  |
| `attribution_residual_joules` | `tokenworks_attribution_residual_joules` | by `boundary`, too |
| `energy_counter_resets_total` | `tokenworks_energy_counter_resets_total` |  |
| `energy_gap_seconds_total` | `tokenworks_energy_gap_seconds_total` |  |
| `power_valid` | `tokenworks_power_valid` | with its reasons in `tokenworks_power_fault` |
| `energy_last_sample_timestamp_seconds` | `tokenworks_energy_last_sample_timestamp_seconds` |  |
| `energy_crosscheck_ratio` | `tokenworks_energy_crosscheck_ratio` |  |
| `power_budget_watts{pool}` | `tokenworks_power_budget_watts` | by `site`, whose contract it is |
| `power_reserved_watts{tier}` | `tokenworks_power_reserved_watts` | with `site` |
| `pue_ratio{basis}` | `tokenworks_pue_ratio` | configured; measured is recorded |
| `grid_carbon_grams_per_kilowatt_hour{zone}` | `tokenworks_grid_carbon_grams_per_kilowatt_hour` \
| by `site`; its source is in the factory's description |
| `carbon_grams_total` | `tokenworks_carbon_grams_total` |  |
| `request_energy_joules` | `tokenworks_request_energy_joules` | of means: no single request is \
measured |
| `customer_tokens_total` | `tokenworks_customer_tokens_total` |  |
| `series_truncated_total` | `tokenworks_series_truncated_total` |  |
| `build_info{weights_version}` | `tokenworks_build_info` | `factory_version` has the weights; \
price books have versions of their own |"""


def make_outcomes_page() -> str:
    """The outcomes of events and the reasons of failed calls, from the contract's comments."""
    files = _read_contract()
    outcome = _Enum.find(files[f"{_CONTRACT}/outcome.proto"], name="Outcome")
    reason = _Enum.find(files[f"{_CONTRACT}/error_reason.proto"], name="ErrorReason")
    outcomes = [
        (str(number), f"`{name}`", "yes" if number >= _QUARANTINED_FROM else "no", comment)
        for number, name, comment in outcome.values
    ]
    of_billing = _Enum.find(files[f"{_BILLING_CONTRACT}/error_reason.proto"], name="ErrorReason")
    return make_page(
        "Outcomes and error reasons",
        source=f"the comments in `proto/{_CONTRACT}/outcome.proto` and the `error_reason.proto` of"
        " both services",
        body=[
            _OUTCOMES_INTRODUCTION,
            "## Outcomes",
            outcome.comment,
            make_table(("Number", "Outcome", "Quarantined", "Meaning"), outcomes),
            "## Numbers of batches",
            make_table(("What comes on a stream", "What the meter answers"), _NUMBERS),
            "## Error reasons",
            reason.comment,
            make_table(("Number", "Reason", "gRPC code", "Meaning"), _reason_rows(reason)),
            "## Error reasons of billing",
            of_billing.comment,
            make_table(("Number", "Reason", "gRPC code", "Meaning"), _reason_rows(of_billing)),
        ],
    )


def _reason_rows(reasons: "_Enum") -> list[tuple[str, ...]]:
    return [
        (str(number), f"`{name}`", *_split_reason(text)) for number, name, text in reasons.values
    ]


_OUTCOMES_INTRODUCTION = """\
What is wrong with an event is its *outcome*: the call succeeds, and the other events are counted. \
What is wrong with a call is its *error reason*: what was not acknowledged before it was not \
recorded."""
_NUMBERS = [
    ("the number that is expected", "an ack: on disk, counted once"),
    ("a number that was recorded, with the same bytes", "an ack again; nothing is added"),
    ("a number that was recorded, with other bytes", "an ack that lists `BATCH_CHANGED`"),
    (
        "a number ahead of the expected one (a hole), or one too old to be compared",
        "`opened` with the number to go to; nothing is recorded",
    ),
    (
        "`open` whose oldest held batch lies beyond the expected number",
        "`opened` with that number; what was passed over is a gap in `tokenworks_batches_missing`",
    ),
    ("anything of an instance that a newer one has followed", "`PRODUCER_TAKEN_OVER`"),
]
# The contract's own rule, in the comment of Outcome.
_QUARANTINED_FROM = 10


def _split_reason(text: str) -> tuple[str, str]:
    """The gRPC code as code, and the sentence after it."""
    code, _, sentence = text.partition(": ")
    name, comma, rest = code.partition(",")
    return f"`{name}`{comma}{rest}", sentence[:1].upper() + sentence[1:]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Enum:
    """An enum of the contract: its comment, and number, name without prefix, comment of each."""

    comment: str
    values: list[tuple[int, str, str]]

    @classmethod
    def find(cls, file: descriptor_pb2.FileDescriptorProto, *, name: str) -> "_Enum":
        """The file's enum of this name, without its value 0, which is never sent."""
        comments = {
            tuple(place.path): " ".join(place.leading_comments.split())
            for place in file.source_code_info.location
        }
        index = next(i for i, enum in enumerate(file.enum_type) if enum.name == name)
        values = file.enum_type[index].value
        # A path is made of field numbers: 5 is a file's enum_type, 2 an enum's value.
        enum_path = (5, index)
        return cls(
            comment=comments[enum_path],
            values=[
                (value.number, _short(value.name), comments[*enum_path, 2, place])
                for place, value in enumerate(values)
                if value.number != 0
            ],
        )


def _short(name: str) -> str:
    return name.removeprefix("OUTCOME_").removeprefix("ERROR_REASON_")


def _read_contract() -> dict[str, descriptor_pb2.FileDescriptorProto]:
    buf = Path(sys.executable).with_name("buf")
    built = subprocess.run(
        [buf, "build", "proto", "--output", "-#format=binpb"],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
    )
    files = descriptor_pb2.FileDescriptorSet.FromString(built.stdout)
    return {file.name: file for file in files.file}


if __name__ == "__main__":
    sys.exit(main())
