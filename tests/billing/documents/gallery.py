"""Invoices to look at: `python -m tests.billing.documents.gallery FOLDER [NAME…]` writes them.

Each becomes four files, one of each document. The golden files are the sample `month`:

    python -m tests.billing.documents.gallery tests/billing/documents/golden month
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Final

from billing.contracts import Party
from billing.documents.canonical import to_json
from billing.documents.html import to_html
from billing.documents.table import to_csv
from billing.documents.text import to_text
from billing.energy import InvoiceEnergy, SiteEnergy
from billing.invoicing import Invoice
from billing.price_book import ModelPrices, Window
from billing.rating import Unpriced
from meter.domain.boundary import Boundary
from meter.domain.tokens import Mode, TokenClass
from tests.billing.documents.grid import TIERS, grid
from tests.billing.documents.whole_documents import WHOLE_DOCUMENTS
from tests.billing.invoices import (
    BHD,
    CACHE_READ,
    DAY_MS,
    INPUT,
    JPY,
    OUTPUT,
    START_MS,
    VERSION,
    Sold,
    book,
    make_draft,
    make_invoice,
    override,
    prices,
    with_names,
)

WRITERS: Final[Mapping[str, Callable[[Invoice], bytes]]] = {
    "json": to_json,
    "txt": to_text,
    "html": to_html,
    "csv": to_csv,
}
LONG_MODEL: Final = (
    "lora/acme-corporation-customer-service/glm-5.1-fp8-instruct-long-context-2026-09-17"
    "-finetuned-on-tickets-and-calls-r64-alpha128-v3"
)
CJK_MODEL: Final = "通义千问-企业版-长文本-二〇二六年九月"
TWO_LINES: Final = (
    Sold("glm-5.1", "medium", OUTPUT, 92_410_021, mode=Mode.BATCH),
    Sold("kimi-k2.6", "high", INPUT, 1_234_567),
)
OFF_PEAK: Final = Window(
    name="off_peak",
    days=frozenset(range(7)),
    hours=((20 * 60, 30 * 60),),
    models=(),
    tiers=("high",),
    modes=(),
    factor=Decimal("0.75"),
)


def month() -> Invoice:
    """An ordinary month: three models, five tiers, a batch, a window, a new price, terms."""
    version = replace(
        VERSION,
        overrides=(
            override(0, models=("kimi-*",), classes=(OUTPUT,), tiers=("ultra",), all=Decimal(8)),
            override(1, models=("deepseek-v4",), factor=Decimal("0.85")),
        ),
    )
    dearer = {
        "kimi-k2.6": ModelPrices(
            table=prices(input="1.05", cache_read="0.1625", output="4.00"), tiers={}
        )
    }
    books = (
        book(windows=(OFF_PEAK,)),
        book(dearer, start_ms=START_MS + 14 * DAY_MS),
    )
    night, later = START_MS + 2 * 3_600_000, START_MS + 20 * DAY_MS
    noon = START_MS + 12 * 3_600_000
    sold = [
        Sold("deepseek-v4", "high", INPUT, 41_220_118, at_ms=noon),
        Sold("deepseek-v4", "high", CACHE_READ, 310_774_932, at_ms=noon),
        Sold("deepseek-v4", "high", OUTPUT, 6_130_557, at_ms=noon),
        Sold("glm-5.1", "free", INPUT, 18_201_444),
        Sold("glm-5.1", "free", OUTPUT, 3_377_190),
        Sold("glm-5.1", "medium", INPUT, 240_551_872),
        Sold("glm-5.1", "medium", OUTPUT, 31_870_264),
        Sold("glm-5.1", "high", INPUT, 1_204_118_903, at_ms=noon),
        Sold("glm-5.1", "high", INPUT, 377_402_110, at_ms=night),
        Sold("glm-5.1", "high", INPUT, 88_231_556, band=4, at_ms=noon),
        Sold("glm-5.1", "high", OUTPUT, 203_551_378, at_ms=noon),
        Sold("glm-5.1", "high", OUTPUT, 92_410_021, mode=Mode.BATCH, at_ms=noon),
        Sold("glm-5.1", "premium", OUTPUT, 77_313),
        Sold("kimi-k2.6", "ultra", INPUT, 9_450_226),
        Sold("kimi-k2.6", "ultra", INPUT, 11_093_817, at_ms=later),
        Sold("kimi-k2.6", "ultra", CACHE_READ, 55_120_667),
        Sold("kimi-k2.6", "ultra", OUTPUT, 2_041_958),
    ]
    return make_invoice(sold, version=version, books=books)


def two_lines() -> Invoice:
    """The example of `docs/reference/invoice.md`: one of them a batch at the contract's terms."""
    version = replace(VERSION, overrides=(override(models=("glm-5.1",), factor=Decimal("0.85")),))
    return make_invoice(TWO_LINES, version=version)


def sixty_lines() -> Invoice:
    """Six models, five tiers, two classes."""
    models = (
        "deepseek-v4",
        "glm-5.1",
        "gpt-oss-480b",
        "kimi-k2.6",
        "llama-5-maverick",
        "qwen4-max",
    )
    return make_invoice(grid(models, classes=(INPUT, OUTPUT)))


def one_long_model() -> Invoice:
    """One model with sixty lines: its head has to come again on the next page."""
    classes = tuple(TokenClass)[:12]
    return make_invoice(grid(("glm-5.1",), classes=classes))


def many_models() -> Invoice:
    """Sixty models with one line each."""
    return make_invoice(grid([f"model-{place:02d}" for place in range(60)], TIERS[2:3], (OUTPUT,)))


def long_names() -> Invoice:
    """Long names and Chinese, Japanese and Korean ones, of parties, addresses, models and tiers."""
    version = replace(
        with_names(
            VERSION,
            seller="Rhein-Main-Donau Rechenzentrumsbetriebs- und Beteiligungsgesellschaft mbH & Co."
            " Kommanditgesellschaft auf Aktien",
        ),
        buyer=Party(
            party_id="tokyo",
            name="株式会社東京人工知能研究開発機構 グローバル事業推進本部",
            address=(
                "〒100-0005 東京都千代田区丸の内一丁目9番2号 グラントウキョウサウスタワー42階",
                "서울특별시 강남구",
                "日本",
            ),
            tax_id="T1234567890123",
        ),
        po="注文書-2026-10-令和八年度-クラウド利用料-第四千五百号",
        overrides=(override(factor=Decimal("0.123456789")),),
    )
    sold = [
        *grid(("glm-5.1", LONG_MODEL), TIERS[:3], (INPUT, TokenClass.CACHE_WRITE_12H)),
        Sold(CJK_MODEL, "medium", TokenClass.AUDIO_CACHE_READ, 999_999_999_999_999),
        Sold(CJK_MODEL, "high", OUTPUT, 12_345_678, mode=Mode.BATCH),
        Sold("한국어-모델", "ultra", OUTPUT, 7_771),
    ]
    tiers = {tier: Decimal(place) for place, tier in enumerate((*TIERS, "a" * 32), 1)}
    books = (replace(book(), tiers=tiers),)
    return make_invoice(
        [*sold, Sold("한국어-모델", "a" * 32, OUTPUT, 70_707)], version=version, books=books
    )


def all_free() -> Invoice:
    """Used, but only for free."""
    return make_invoice(grid(("glm-5.1", "kimi-k2.6"), TIERS[:1], (INPUT, OUTPUT)))


def no_lines() -> Invoice:
    """A month in which nothing was used."""
    return make_invoice([])


def preview() -> Invoice:
    """The middle of a month, with keys that have no price."""
    unpriced = (
        _unpriced("glm-6-preview", "high", INPUT, 81_220_004),
        _unpriced("glm-6-preview", "high", OUTPUT, 12_405_113, mode=Mode.BATCH, band=8),
        _unpriced(CJK_MODEL, "ultra", TokenClass.REASONING, 771),
    )
    return make_draft(
        grid(("glm-5.1", "kimi-k2.6"), TIERS[1:4], (INPUT, OUTPUT)), unpriced=unpriced
    )


def sandbox() -> Invoice:
    """An invoice that no real month stands behind, of more than one page."""
    return make_invoice(
        grid(("glm-5.1", "kimi-k2.6"), classes=(INPUT, CACHE_READ, OUTPUT)), is_sandbox=True
    )


def sandbox_preview() -> Invoice:
    """Both banners."""
    return make_draft(grid(("glm-5.1",), TIERS[1:3], (INPUT, OUTPUT)), is_sandbox=True)


def taken_back() -> Invoice:
    """Less than nothing, and a line with a loss."""
    return make_invoice(
        [Sold("glm-5.1", "high", INPUT, -12_345_678), Sold("glm-5.1", "high", OUTPUT, 1_003)]
    )


def yen() -> Invoice:
    """A currency without decimals, and prices with and without some."""
    models = {"glm-5.1": ModelPrices(table=prices(input="210", output="660.5"), tiers={})}
    version = replace(VERSION, currency=JPY)
    return make_invoice(
        grid(("glm-5.1",), TIERS[:4], (INPUT, OUTPUT)),
        version=version,
        books=(book(models, currency=JPY),),
    )


def dinar() -> Invoice:
    """A currency with three decimals."""
    models = {"glm-5.1": ModelPrices(table=prices(input="0.52", output="1.6585"), tiers={})}
    version = replace(VERSION, currency=BHD)
    return make_invoice(
        grid(("glm-5.1",), TIERS[:4], (INPUT, OUTPUT)),
        version=version,
        books=(book(models, currency=BHD),),
    )


def _unpriced(
    model: str,
    tier: str,
    token_class: TokenClass,
    count: int,
    *,
    mode: Mode = Mode.ONLINE,
    band: int = 0,
) -> Unpriced:
    return Unpriced(
        model=model,
        tier=tier,
        mode=mode,
        token_class=token_class,
        band=band,
        token_count=count,
        first_ms=START_MS + 2 * DAY_MS + 36_900_000,
    )


def with_energy() -> Invoice:
    """Two lines, and the energy of a facility with two sites, some of it not known."""
    version = replace(VERSION, energy=Boundary.FACILITY)
    invoice = make_invoice(TWO_LINES, version=version)
    sites = (
        SiteEnergy(
            site="bergen", pools_mj=2_143_567_891_234, pue=Decimal("1.0833"), is_measured=True
        ),
        SiteEnergy(site="oslo", pools_mj=987_654_321_000, pue=Decimal("1.2"), is_measured=False),
    )
    return replace(
        invoice,
        energy=InvoiceEnergy(
            boundary=Boundary.FACILITY,
            pools_mj=sum(it.pools_mj for it in sites),
            estimated_mj=12_345_678,
            output_tokens=92_410_021,
            known_output_tokens=91_100_000,
            sites=sites,
            factory_versions=(0, 1, 2),
        ),
    )


def energy_of_little() -> Invoice:
    """A preview of two lines that took less than a kilowatt-hour."""
    version = replace(VERSION, energy=Boundary.BOARD)
    return replace(
        make_draft(TWO_LINES, version=version),
        energy=InvoiceEnergy(
            boundary=Boundary.BOARD,
            pools_mj=1_234_567,
            estimated_mj=0,
            output_tokens=92_410_021,
            known_output_tokens=92_410_021,
            sites=(),
            factory_versions=(0,),
        ),
    )


SAMPLES: Final[Mapping[str, Callable[[], Invoice]]] = {
    it.__name__: it
    for it in (
        *(
            month,
            two_lines,
            sixty_lines,
            one_long_model,
            many_models,
            long_names,
            all_free,
            no_lines,
        ),
        *(preview, sandbox, sandbox_preview, taken_back, yen, dinar),
        *(with_energy, energy_of_little),
        *WHOLE_DOCUMENTS,
    )
}


def write_all(folder: Path, names: Sequence[str] = ()) -> None:
    """Write the named samples, or all, into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or SAMPLES:
        invoice = SAMPLES[name]()
        for suffix, write in WRITERS.items():
            (folder / f"{name}.{suffix}").write_bytes(write(invoice))


if __name__ == "__main__":
    write_all(Path(sys.argv[1]), sys.argv[2:])
