"""BillingService: thin, each method translates, and hands on to a use case."""

import asyncio
from typing import Any, TypeAlias

import grpc

from billing.money import write
from billing.pool_revenue import revenue_by_pool
from billing.revenue import Pricing, revenue_by_tier
from billing.wire.closing_desk import ClosingDesk
from billing.wire.documents_desk import DocumentsDesk
from billing.wire.events_desk import EventsDesk
from billing.wire.messages import (
    from_form,
    from_month,
    from_span,
    to_preview,
    to_summary,
)
from billing.wire.rendering import RENDER_EXPLANATION
from billing.wire.terms_desk import TermsDesk
from meter.domain.account import invalid_argument
from tokenworks.billing.v1 import billing_service_pb2 as pb
from tokenworks.billing.v1 import billing_service_pb2_grpc

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class BillingServicer(
    TermsDesk,
    ClosingDesk,
    DocumentsDesk,
    EventsDesk,
    billing_service_pb2_grpc.BillingServiceServicer,
):
    """Answers the calls: those about documents itself, others at their desks."""

    async def PreviewInvoice(
        self, request: pb.PreviewInvoiceRequest, _context: _Context
    ) -> pb.PreviewInvoiceResponse:
        """Draft invoices of all that is counted."""
        self._door.admit(request.account)
        self._host.tree().get(request.account)
        month = from_month(request.month) if request.month else None
        found = await asyncio.to_thread(self._parts.closing.previews, request.account, month)
        # A contract's invoice is of all that it covers: who reads one account may not see others.
        for it in found:
            self._door.admit_to_all(it.invoice.version.covers)
        form = from_form(request.format)
        documents = [
            await asyncio.to_thread(self._parts.papers.render, it.invoice, form) for it in found
        ]
        return pb.PreviewInvoiceResponse(
            previews=[
                to_preview(it, document) for it, document in zip(found, documents, strict=True)
            ]
        )

    async def GetInvoice(
        self, request: pb.GetInvoiceRequest, _context: _Context
    ) -> pb.GetInvoiceResponse:
        """Return an invoice."""
        invoice = await self._readable_invoice(request.number)
        document = await asyncio.to_thread(
            self._parts.papers.render, invoice, from_form(request.format)
        )
        standings = await asyncio.to_thread(self._parts.documents.standings, [request.number])
        return pb.GetInvoiceResponse(
            invoice=to_summary(invoice, standing=standings[request.number]), document=document
        )

    async def ExplainInvoiceLine(
        self, request: pb.ExplainInvoiceLineRequest, _context: _Context
    ) -> pb.ExplainInvoiceLineResponse:
        """Explain a line."""
        await self._readable_invoice(request.number)
        form = from_form(request.format)
        if form not in RENDER_EXPLANATION:
            raise invalid_argument("format", "text or JSON")
        explanation = await asyncio.to_thread(
            self._parts.explaining.explain_line, request.number, request.line
        )
        return pb.ExplainInvoiceLineResponse(
            document=RENDER_EXPLANATION[form](explanation), closed=explanation.is_closed
        )

    async def QueryRevenue(
        self, request: pb.QueryRevenueRequest, _context: _Context
    ) -> pb.QueryRevenueResponse:
        """Sum what usage comes to."""
        span = from_span(request.start_time, request.end_time)
        pricing, facts = Pricing(await self._terms(), self._host.tree()), self._host.facts
        if request.by_pool:
            found = await asyncio.to_thread(
                revenue_by_pool, pricing, facts, self._host.consumption, span=span
            )
        else:
            found = await asyncio.to_thread(revenue_by_tier, pricing, facts, span)
        return pb.QueryRevenueResponse(
            rows=[
                pb.RevenueRow(
                    tier=it.tier, currency=it.currency, amount=write(it.amount), pool=it.pool
                )
                for it in found
            ]
        )
