"""Complaints 17 and 21 again: what prices were, stays what they were."""

import hashlib

import pytest

from billing.errors import BillingReason
from meter.domain.errors import Refused
from tests.billing.town import Town, book_toml, contract_toml
from tests.peers.customers import Customer


def test_killbill_1060__new_terms_leave_what_was_used_before_them(town: Town) -> None:
    """Usage of before a version of a contract is priced by the version of then, in one month."""
    moved = Customer(town, "moved")
    moved.use("2026-10-14T23:59:59", input=1_000_000)
    moved.use("2026-10-15T00:00:00", input=70_000)
    half = '[[overrides]]\nfactor = "0.5"\n'
    moved.set_contract(start="2026-10-15T00:00:00", extra=half)
    invoices = [it.invoice for it in moved.close() if it.invoice is not None]
    found = [(it.token_count, str(it.price.unit_price)) for each in invoices for it in each.lines]
    assert sorted(found) == [(70_000, "1.5"), (1_000_000, "3")]


def test_any_llm_995__document_names_the_prices_that_it_was_made_by(town: Town) -> None:
    """Whatever is imported later, an invoice has the hash of the file that priced it."""
    pinned = Customer(town, "pinned")
    pinned.use(input=1)
    invoice = pinned.invoice()
    pinned.import_book('all = "9"', start="2026-11-01T00:00:00")
    texts = (
        book_toml(book="pinned"),
        contract_toml("pinned", covers="pinned", zone="UTC", book="pinned", series="PINNED"),
    )
    digests = {hashlib.sha256(text.encode()).hexdigest() for text in texts}
    assert {it.sha256 for it in invoice.terms} == digests


def test_ubicloud_2581__rates_edited_in_place_rewrite_nothing(town: Town) -> None:
    """Terms that would change an invoice are refused; if they are wanted, it stays all the same."""
    edited = Customer(town, "edited")
    edited.use(input=1_000_000)
    invoice = edited.invoice()
    assert invoice.issue is not None
    half = '[[overrides]]\nfactor = "0.5"\n'
    with pytest.raises(Refused) as error:
        edited.set_contract(extra=half)
    assert error.value.reason is BillingReason.PERIOD_ISSUED
    question = f"SELECT document FROM issued_invoices WHERE number = '{invoice.issue.number}'"
    before = town.ask(question)
    text = contract_toml(
        "edited", covers="edited", zone="UTC", book="edited", series="EDITED", extra=half
    )
    (document,) = town.set_contract(text, correct=True).corrections
    assert (str(document.net), document.kind.value) == ("-1.50", "credit_note")
    assert town.ask(question) == before
