"""Figures that others have published, as they stand there; what is cited is theirs."""

from decimal import Decimal
from typing import Final, NamedTuple


class MlEnergyRow(NamedTuple):
    """A row of the ML.ENERGY leaderboard of 2026-02-16: boards alone, output tokens alone.

    `watts` of all boards together, output tokens a second, joules a token, tokens a joule.
    """

    name: str
    board_count: int
    watts: str
    tokens_per_second: str
    joules_per_token: str
    tokens_per_joule: str


class InferenceXRow(NamedTuple):
    """A GPU in InferenceX of April 2026: provisioned kW with all that belongs to it.

    Millions of tokens, input and output, a second and megawatt; tokens a second of one GPU; joules
    a token.
    """

    hardware: str
    kilowatts: str
    million_tokens_per_megawatt: str
    tokens_per_second: str
    joules_per_token: str


class Generation(NamedTuple):
    """A generation of the keynote's chart, as an independent reader took it off.

    Millions of tokens a second and megawatt of each tier; with 250 MW for each: billions of dollars
    a year by tier and in all, and dollars per million tokens of all together.
    """

    shipped: str
    million_tokens_per_megawatt: dict[str, str]
    billions: dict[str, str]
    total_billions: str
    blended: str


KEYNOTE_PRICES: Final = {"free": "0", "medium": "3", "high": "6", "premium": "45"}
KEYNOTE: Final = (
    Generation(
        "keynote-hopper",
        {"free": "0.15", "medium": "0.06"},
        {"free": "0", "medium": "1.419"},
        "1.419",
        "0.857",
    ),
    Generation(
        "keynote-blackwell-as-read",
        {"free": "0.70", "medium": "0.60", "high": "0.15", "premium": "0.07"},
        {"free": "0", "medium": "14.191", "high": "7.096", "premium": "24.835"},
        "46.122",
        "3.849",
    ),
    Generation(
        "keynote-blackwell",
        {"free": "0.70", "medium": "0.60", "high": "0.15", "premium": "0.02"},
        {"free": "0", "medium": "14.191", "high": "7.096", "premium": "7.096"},
        "28.382",
        "2.449",
    ),
    Generation(
        "keynote-rubin",
        {"free": "1.65", "medium": "1.60", "high": "0.70", "premium": "0.20"},
        {"free": "0", "medium": "37.843", "high": "33.113", "premium": "70.956"},
        "141.912",
        "4.337",
    ),
)
ML_ENERGY: Final = (
    MlEnergyRow("llama-8b-h100", 1, "688.298", "9805.588", "0.070194", "14.246"),
    MlEnergyRow("llama-8b-b200", 1, "691.065", "14799.303", "0.046696", "21.415"),
    MlEnergyRow("llama-70b-h100", 4, "2547.518", "6827.208", "0.373142", "2.680"),
    MlEnergyRow("llama-70b-b200", 2, "1907.086", "10107.812", "0.188674", "5.300"),
    MlEnergyRow("qwen3-235b-h100", 8, "4038.403", "3695.768", "1.092710", "0.915"),
    MlEnergyRow("qwen3-235b-b200", 4, "3196.066", "13303.341", "0.240245", "4.162"),
    MlEnergyRow("deepseek-v3-b200", 8, "5469.904", "9021.119", "0.606344", "1.649"),
    MlEnergyRow("deepseek-r1-b200", 8, "7126.161", "2999.034", "2.376152", "0.421"),
    MlEnergyRow("gpt-oss-120b-b200", 1, "673.505", "16979.067", "0.039667", "25.210"),
    MlEnergyRow("gpt-oss-20b-h100", 1, "597.835", "13520.717", "0.044216", "22.616"),
)
INFERENCE_X: Final = (
    InferenceXRow("h100", "1.73", "0.90", "1557", "1.111"),
    InferenceXRow("b200", "2.17", "2.80", "6076", "0.357"),
    InferenceXRow("mi300x", "1.79", "0.75", "1342.5", "1.333"),
    InferenceXRow("mi355x", "2.65", "2.55", "6757.5", "0.392"),
)
# A median prompt of Gemini: watt-hours in all, and what of it is whose, in rounded per cent.
GOOGLE_WATT_HOURS: Final = Decimal("0.24")
GOOGLE_PERCENT: Final = {"accelerators": 58, "hosts": 25, "idle": 10, "overhead": 8}
# The PUE of its data centres.
GOOGLE_PUE: Final = "1.09"
