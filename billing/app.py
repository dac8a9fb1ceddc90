"""The one place where billing's parts are built and joined."""

from threading import Event

from billing.access import BILLING_ACCESS
from billing.auditing import Auditing, UsageTotals
from billing.closers import MakeClosers
from billing.closing import Closing
from billing.correcting import Correcting
from billing.credit_notes import CreditNotes
from billing.customers import TopCustomers
from billing.explaining import Explaining
from billing.metrics import BillingMetrics
from billing.months import Months
from billing.open_months import OpenMonths
from billing.papers import PaperPress
from billing.payments import Payments
from billing.period_closing import PeriodClosing
from billing.replay import Replaying
from billing.revenue import RevenueMeter
from billing.setting_terms import SettingTerms
from billing.store.documents import DocumentStore
from billing.store.former_ledger import FormerLedger
from billing.store.invoices import InvoiceStore
from billing.store.kept import KeptInvoiceStore
from billing.store.ledger import LedgerStore
from billing.store.open_months import OpenMonthStore
from billing.store.papers import PaperStore
from billing.store.periods import PeriodStore
from billing.store.proofs import ProofStore
from billing.store.terms import TermsStore
from billing.term_effects import TermEffects
from billing.tracing import Tracing
from billing.typesetting import Typesetter
from billing.wire.desk import BillingParts
from billing.wire.servicer import BillingServicer
from meter.hosting import Door, Host, Resident
from meter.runtime.zones import tzdata_version
from meter.series import Exposition
from tokenworks.billing.v1 import billing_service_pb2, billing_service_pb2_grpc


def make_resident(
    host: Host,
    door: Door,
    page: Exposition,
    *,
    customer_metrics_max: int = 0,
    make_closers: MakeClosers | None = None,
) -> Resident:
    """Return the billing service for a meter's process.

    So many customers have metrics of their own, those that take the most. See `make_closing`.
    """
    parts = make_parts(host, make_closers=make_closers)
    servicer = BillingServicer(parts, host=host, door=door)
    metrics = BillingMetrics(page)
    customers = None
    if customer_metrics_max:
        customers = TopCustomers(customer_metrics_max, metrics=metrics, now_ms=host.clock.now_ms)
    revenue = RevenueMeter(parts.terms, tree=host.tree, metrics=metrics, customers=customers)
    months = OpenMonths(OpenMonthStore(host.engine), metrics=metrics, now_ms=host.clock.now_ms)
    return Resident(
        name=billing_service_pb2.DESCRIPTOR.services_by_name["BillingService"].full_name,
        access=BILLING_ACCESS,
        add_to=lambda server: billing_service_pb2_grpc.add_BillingServiceServicer_to_server(
            servicer, server
        ),
        on_counted=revenue.counted,
        on_watch=months.look,
    )


def make_closing(host: Host, *, make_closers: MakeClosers | None = None) -> Closing:
    """Return what closes months, for a job on a meter's database.

    `make_closers` makes processes that share the work; None: this one does all of it.
    """
    return make_parts(host, make_closers=make_closers).closing


def make_press(host: Host) -> PaperPress:
    """Return what makes papers of documents, for a job on a meter's database."""
    return PaperPress(store=PaperStore(host.engine), typesetter=Typesetter())


def make_auditing(host: Host, *, usage: UsageTotals) -> Auditing:
    """Return what compares invoices with usage, for a job on a meter's database."""
    return Auditing(
        terms=make_parts(host).terms,
        kept=KeptInvoiceStore(host.engine),
        ledger=LedgerStore(host.engine),
        usage=usage,
        facts=host.facts,
        tree=host.tree,
    )


def make_replaying(host: Host) -> Replaying:
    """Return what makes documents again, for a job on a meter's database."""
    return Replaying(
        terms=make_parts(host).terms,
        proofs=ProofStore(host.engine),
        ledger=FormerLedger(host.engine, ledger=LedgerStore(host.engine)),
        consumption=host.consumption,
        tree=host.tree,
        is_sandbox=host.is_driven,
    )


def make_parts(host: Host, *, make_closers: MakeClosers | None = None) -> BillingParts:
    """Return the use cases and stores, joined; see `make_closing`."""
    terms = TermsStore(host.engine, tiers=host.tiers, tree=host.tree, change_log=host.change_log)
    invoices = InvoiceStore(host.engine)
    documents = DocumentStore(host.engine, change_log=host.change_log)
    ledger = LedgerStore(host.engine)
    periods = PeriodStore(host.engine, change_log=host.change_log, tzdata=tzdata_version())
    closer = PeriodClosing(
        terms=terms,
        periods=periods,
        ledger=ledger,
        facts=host.facts,
        sums=host.sums,
        reporters=host.reporters,
        consumption=host.consumption,
        engine_drifts=host.engine_drifts,
        tree=host.tree,
        is_sandbox=host.is_driven,
    )
    closing = Closing(
        closer=closer,
        cuts=host.cuts,
        clock=host.clock,
        pause=Event().wait,
        make_closers=make_closers,
    )
    tracing = Tracing(
        terms=terms,
        invoices=invoices,
        marks=ProofStore(host.engine),
        periods=periods,
        facts=host.facts,
        sums=host.sums,
        ledger=ledger,
        evidence=host.evidence,
        tree=host.tree,
    )
    explaining = Explaining(invoices=invoices, tracing=tracing, evidence=host.evidence)
    correcting = Correcting(
        documents=documents,
        periods=closing.periods,
        ledger=ledger,
        clock=host.clock,
        look=closer.look,
        take_cut=closing.take_cut,
    )
    effects = TermEffects(
        tree=host.tree, facts=host.facts, sums=host.sums, ledger=ledger, clock=host.clock
    )
    return BillingParts(
        terms=terms,
        setting=SettingTerms(
            terms=terms,
            effects=effects,
            correct=correcting.correct,
            clock=host.clock,
        ),
        invoices=invoices,
        closing=closing,
        months=Months(closing=closing),
        explaining=explaining,
        papers=make_press(host),
        documents=documents,
        credit_notes=CreditNotes(documents=documents),
        payments=Payments(documents=documents),
        correcting=correcting,
    )
