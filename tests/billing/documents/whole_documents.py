"""Documents with all that one can have: groups, adjustments, charges, credits, taxes."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Final

from billing.contracts import Party
from billing.invoicing import (
    ChargeLine,
    CreditLine,
    DocumentKind,
    Group,
    Invoice,
    InvoiceLine,
    Origin,
    TermsFile,
    issue,
)
from billing.money import add_up, multiply, round_half_up, subtract
from billing.periods import Month, month_start_ms
from billing.price_book import ModelPrices
from billing.tax import Tax, tax_totals
from meter.domain.tokens import Mode, TokenClass
from tests.billing.documents.grid import TIERS, grid
from tests.billing.invoices import (
    BERLIN,
    CACHE_READ,
    INPUT,
    JPY,
    OUTPUT,
    SELLER,
    START_MS,
    VERSION,
    Sold,
    book,
    make_draft,
    prices,
)

VAT: Final = Tax(category="S", rate=Decimal(19))
REVERSE: Final = Tax(
    category="AE",
    rate=Decimal(0),
    note="Reverse charge: VAT to be accounted for by the recipient.",
)
BANK: Final = ("IBAN DE02 1203 0000 0000 2020 51", "BIC BYLADEM1001, Nimbus GmbH")
SEPTEMBER: Final = Month(2026, 9)
TERMS: Final = (
    TermsFile(kind="book", name="retail", start_ms=START_MS, sha256="3f" * 32),
    TermsFile(kind="contract", name="acme-2026", start_ms=START_MS, sha256="a7" * 32),
)
USAGE_SHA256: Final = "9c0e" * 16
ISSUED_AFTER_MS: Final = 39_600_000


def whole() -> Invoice:
    """All sections: two groups, two adjustments, two charges, tax, bank, hashes."""
    version = replace(VERSION, tax=VAT, bank=BANK, by_account=True)
    sold = grid(("glm-5.1", "kimi-k2.6"), TIERS[1:3], (INPUT, OUTPUT))
    made = make_draft(sold, version=version, cut_id=31)
    lines = [replace(it, group="research" if it.line <= 6 else "sales-emea") for it in made.lines]
    late = _adjustments(
        make_draft(
            [
                Sold("glm-5.1", "high", INPUT, 4_100_233),
                Sold("glm-5.1", "high", OUTPUT, -120_000),
                Sold("kimi-k2.6", "medium", OUTPUT, 77_313, mode=Mode.BATCH),
            ],
            version=version,
        ).lines
    )
    groups = (
        Group(account_id="research", path="acme/research"),
        Group(account_id="sales-emea", path="acme/sales/emea"),
    )
    return _issued(made, lines=[*lines, *late], charges=_charges(), groups=groups)


def two_hundred_lines() -> Invoice:
    """Ten models, four tiers, five classes."""
    models = [f"model-{chr(ord('a') + place)}-480b" for place in range(10)]
    classes = (INPUT, CACHE_READ, TokenClass.CACHE_WRITE_5M, OUTPUT, TokenClass.REASONING)
    version = replace(VERSION, tax=VAT, bank=BANK)
    return _issued(make_draft(grid(models, TIERS[1:], classes), version=version, cut_id=31))


def cjk_and_rtl() -> Invoice:
    """Parties, accounts and charges in Chinese, Japanese, Korean, Arabic and Hebrew."""
    version = replace(
        VERSION,
        tax=REVERSE,
        seller=replace(
            SELLER,
            name="شركة الغيمة للحوسبة (ذ.م.م)",
            address=("شارع الملك فهد 12", "الرياض 12345", "المملكة العربية السعودية"),
        ),
        buyer=Party(
            party_id="tel-aviv",
            name="חברת בינה מלאכותית בע״מ",
            address=(
                "רחוב הרצל 7",
                "תל אביב",
                "東京都千代田区丸の内一丁目9番2号",
                "서울특별시 강남구",
            ),
            tax_id="IL514321987",
        ),
        bank=("בנק לאומי, סניף 800", "IBAN IL62 0108 0000 0009 9999 999"),
        by_account=True,
        po="طلب شراء 2026-10",
    )
    sold = [
        Sold("通义千问-企业版", "high", INPUT, 240_551_872),
        Sold("通义千问-企业版", "high", OUTPUT, 31_870_264),
        Sold("日本語大規模言語モデル", "medium", OUTPUT, 6_130_557),
        Sold("한국어-모델", "medium", OUTPUT, 7_771),
        Sold("نموذج-عربي", "ultra", INPUT, 9_450_226),
        Sold("מודל-עברי", "premium", OUTPUT, 77_313),
    ]
    made = make_draft(sold, version=version, cut_id=31)
    lines = [replace(it, group="tokyo" if it.line <= 4 else "haifa") for it in made.lines]
    groups = (
        Group(account_id="tokyo", path="本社/東京研究所"),
        Group(account_id="haifa", path="الشركة/חיפה"),
    )
    charge = _charge(
        1, text="رسوم الدعم الفني", quantity="1", unit="月", price="250.00", tax=REVERSE
    )
    return _issued(made, lines=lines, charges=[charge], groups=groups)


def zero_total() -> Invoice:
    """Used, but only for free, and a document all the same."""
    version = replace(VERSION, tax=VAT, zero_documents=True, bank=BANK)
    sold = grid(("glm-5.1", "kimi-k2.6"), TIERS[:1], (INPUT, OUTPUT))
    return _issued(make_draft(sold, version=version, cut_id=31))


def credit_note() -> Invoice:
    """Two lines of an invoice, one in part, with the tax that it had."""
    version = replace(VERSION, tax=VAT)
    off = [
        _credit(1, text="glm-5.1 · high · output", line=4, tokens=92_410_021, amount="-203.30"),
        _credit(2, text="Support, gold", line=9, tokens=None, amount="-100.00"),
    ]
    made = make_draft([], version=version, cut_id=31)
    return _issued(
        replace(
            made,
            kind=DocumentKind.CREDIT_NOTE,
            refers_to="NG-2026-000042",
            reason="Outage of 12 October, as agreed with Ms Durand",
        ),
        credits=off,
        number=7,
    )


def write_off() -> Invoice:
    """Late usage of a closed month that nobody has to pay."""
    version = replace(VERSION, tax=VAT)
    late = _adjustments(
        make_draft([Sold("glm-5.1", "high", INPUT, 4_100_233)], version=version).lines
    )
    sum_of = add_up(it.billed for it in late)
    off = [
        CreditLine(
            line=2,
            number="",
            number_line=0,
            text="Not billed",
            token_count=None,
            amount=-sum_of,
            tax=VAT,
        )
    ]
    made = replace(
        make_draft([], version=version, cut_id=32),
        kind=DocumentKind.WRITE_OFF,
        refers_to="NG-2026-000042",
        reason="Reported three weeks after the end of the contract",
    )
    return _issued(made, lines=late, credits=off, number=1)


def supplementary() -> Invoice:
    """Late usage after a contract's last invoice."""
    version = replace(VERSION, tax=VAT, bank=BANK)
    late = _adjustments(
        make_draft([Sold("glm-5.1", "high", INPUT, 41_002_330)], version=version).lines
    )
    made = replace(
        make_draft([], version=version, cut_id=32),
        kind=DocumentKind.SUPPLEMENTARY_INVOICE,
        refers_to="NG-2026-000042",
        reason="A producer came back after the last invoice",
    )
    return _issued(made, lines=late, number=43)


def replacement() -> Invoice:
    """An invoice that stands for a void one, in yen."""
    models = {"glm-5.1": ModelPrices(table=prices(input="210", output="660.5"), tiers={})}
    version = replace(VERSION, currency=JPY, tax=VAT, bank=BANK)
    made = make_draft(
        grid(("glm-5.1",), TIERS[:4], (INPUT, OUTPUT)),
        version=version,
        books=(book(models, currency=JPY),),
        cut_id=33,
    )
    return _issued(replace(made, replaces="NG-2026-000042"), number=44)


def long_project_names() -> Invoice:
    """Accounts, charges and a reason whose names are longer than their places."""
    version = replace(VERSION, by_account=True)
    path = (
        "acme-corporation/research-and-development/foundation-models/"
        "multimodal-understanding-and-generation/project-nightingale-phase-three-europe-west"
    )
    made = make_draft(
        grid(("lora/" + "customer-service-" * 7 + "v3", "glm-5.1"), TIERS[1:3]),
        version=version,
        cut_id=31,
    )
    lines = [replace(it, group="nightingale") for it in made.lines]
    text = "Reserved capacity of Project Nightingale, phase three, Europe West, " + "x" * 90
    charge = _charge(1, text=text, quantity="744", unit="GPU-hours", price="2.375", tax=None)
    groups = (Group(account_id="nightingale", path=path),)
    return _issued(made, lines=lines, charges=[charge], groups=groups)


def _issued(
    made: Invoice,
    *,
    lines: Sequence[InvoiceLine] | None = None,
    charges: Sequence[ChargeLine] = (),
    credits: Sequence[CreditLine] = (),  # noqa: A002
    groups: tuple[Group, ...] = (),
    number: int = 42,
) -> Invoice:
    """Return a draft with these lines, numbered through and added up, as it was issued."""
    tokens = list(made.lines if lines is None else lines)
    placed_lines = tuple(replace(it, line=place) for place, it in enumerate(tokens, 1))
    placed_charges = tuple(
        replace(it, line=len(tokens) + place) for place, it in enumerate(charges, 1)
    )
    currency, tax = made.version.currency, made.version.tax
    amounts = [(tax, it.billed) for it in placed_lines]
    amounts += [(it.tax, it.billed) for it in placed_charges]
    amounts += [(it.tax, it.amount) for it in credits]
    taxes = tax_totals(amounts, currency)
    whole_document = replace(
        made,
        lines=placed_lines,
        charges=placed_charges,
        credits=tuple(credits),
        groups=groups,
        taxes=taxes,
        total=round_half_up(
            add_up([*(it for _, it in amounts), *(it.amount for it in taxes)]), currency
        ),
        residue=add_up(
            [*(it.residue for it in placed_lines), *(it.residue for it in placed_charges)]
        ),
        usage_sha256=USAGE_SHA256,
        terms=TERMS,
    )
    return issue(whole_document, number=number, issue_ms=made.span.end_ms + ISSUED_AFTER_MS)


def _adjustments(lines: Iterable[InvoiceLine]) -> list[InvoiceLine]:
    """Return lines as adjustments of September; every third one was not billed before."""
    start_ms = month_start_ms(SEPTEMBER, BERLIN)
    return [
        replace(
            it,
            origin=Origin(
                month=SEPTEMBER,
                start_ms=start_ms,
                number="NG-2026-000031",
                line=0 if it.line % 3 == 0 else it.line + 4,
            ),
        )
        for it in lines
    ]


def _charges() -> list[ChargeLine]:
    return [
        _charge(1, text="Support, gold", quantity="1", unit="month", price="250", tax=VAT),
        _charge(
            2, text="Reserved H100", quantity="744.5", unit="GPU-hours", price="2.375", tax=VAT
        ),
    ]


def _charge(
    place: int, *, text: str, quantity: str, unit: str, price: str, tax: Tax | None
) -> ChargeLine:
    exact = multiply(Decimal(quantity), Decimal(price))
    billed = round_half_up(exact, VERSION.currency)
    return ChargeLine(
        line=place,
        charge_id=f"charge-{place}",
        text=text,
        quantity=Decimal(quantity),
        unit=unit,
        unit_price=Decimal(price),
        exact=exact,
        billed=billed,
        residue=subtract(exact, billed),
        tax=tax,
    )


def _credit(place: int, *, text: str, line: int, tokens: int | None, amount: str) -> CreditLine:
    return CreditLine(
        line=place,
        number="NG-2026-000042",
        number_line=line,
        text=text,
        token_count=tokens,
        amount=Decimal(amount),
        tax=VAT,
    )


WHOLE_DOCUMENTS: Final[tuple[Callable[[], Invoice], ...]] = (
    *(whole, two_hundred_lines, cjk_and_rtl, zero_total, credit_note, write_off),
    *(supplementary, replacement, long_project_names),
)
