"""A call of each kind for the matrix of roles: about one account, or about everything.

Whoever is let in is told that the request is wrong, wherever it would otherwise change anything.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import Default
from google.protobuf.timestamp_pb2 import Timestamp
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from tokenworks.billing.v1 import billing_service_pb2 as billing
from tokenworks.foreign.envoy.v1 import access_log_pb2 as envoy
from tokenworks.meter.v1 import (
    account_service_pb2 as accounts,
)
from tokenworks.meter.v1 import (
    audit_service_pb2,
    clock_service_pb2,
    producer_service_pb2,
)
from tokenworks.meter.v1 import (
    energy_service_pb2 as energy,
)
from tokenworks.meter.v1 import (
    engine_service_pb2 as engines,
)
from tokenworks.meter.v1 import (
    meter_service_pb2 as meter,
)

METER: Final = "tokenworks.meter.v1."
BILLING: Final = "tokenworks.billing.v1.BillingService/"
OTLP: Final = "opentelemetry.proto.collector."
ENVOY: Final = "envoy.service.accesslog.v3.AccessLogService"
# In the accounts' tree: tenant-team is in tenant, which is in holding; stranger-team in stranger.
ABOVE, OWN, BELOW = "holding", "tenant", "tenant-team"
FOREIGN, FOREIGN_BELOW = "stranger", "stranger-team"


@dataclass(frozen=True, slots=True, kw_only=True)
class Things:
    """What was made beforehand and calls are about: an invoice of OWN, and two of its keys."""

    invoice: str
    live_key_id: str
    revoked_key_id: str


Probe = Callable[[str, Things], Any]


def _add_envoy_service() -> Any:  # noqa: ANN401
    """Return the file of Envoy's service with our messages: there are no stubs of its name."""
    package, _, service = ENVOY.rpartition(".")
    file = FileDescriptorProto(name="tests/envoy_service.proto", package=package, syntax="proto3")
    file.dependency.append(envoy.DESCRIPTOR.name)
    method = file.service.add(name=service).method.add(
        name="StreamAccessLogs",
        input_type=f".{envoy.AccessLogMessage.DESCRIPTOR.full_name}",
        output_type=f".{envoy.AccessLogAnswer.DESCRIPTOR.full_name}",
    )
    method.client_streaming = True
    return Default().AddSerializedFile(file.SerializeToString())


ENVOY_FILE: Final = _add_envoy_service()


def _edge(text: str) -> Timestamp:
    time = Timestamp()
    time.FromJsonString(text)
    return time


def _query(account: str, _: Things) -> meter.QueryUsageRequest:
    return meter.QueryUsageRequest(
        account=account,
        start_time=_edge("2026-10-01T00:00:00Z"),
        end_time=_edge("2026-11-01T00:00:00Z"),
        group_by=[meter.GROUP_BY_ACCOUNT],
    )


# Calls about an account: the one that is named, or everything for "".
NAMED: Final[Mapping[str, Probe]] = {
    METER + "MeterService/QueryUsage": _query,
    METER + "AccountService/CreateAccount": lambda account, _: accounts.CreateAccountRequest(
        parent=account, handle="No Handle"
    ),
    METER + "AccountService/ListAccounts": lambda account, _: accounts.ListAccountsRequest(
        account=account
    ),
    METER + "AccountService/CreateApiKey": lambda account, _: accounts.CreateApiKeyRequest(
        account=account
    ),
    METER + "AccountService/ListApiKeys": lambda account, _: accounts.ListApiKeysRequest(
        account=account
    ),
    METER + "ProducerService/ListProducers": lambda account, _: (
        producer_service_pb2.ListProducersRequest(account=account)
    ),
    METER + "ProducerService/RegisterProducer": lambda account, _: (
        producer_service_pb2.RegisterProducerRequest(account=account, producer="no name")
    ),
    METER + "ProducerService/RetireProducer": lambda account, _: (
        producer_service_pb2.RetireProducerRequest(account=account, producer="no name")
    ),
    BILLING + "ListInvoices": lambda account, _: billing.ListInvoicesRequest(account=account),
}
# Calls about what is of OWN, and cannot be about everything.
FIXED: Final[Mapping[str, Probe]] = {
    METER + "AccountService/GetAccount": lambda account, _: accounts.GetAccountRequest(
        account=account
    ),
    # To where it is: on both parents, which are OWN.
    METER + "AccountService/MoveAccount": lambda account, _: accounts.MoveAccountRequest(
        account=BELOW, parent=account
    ),
    # Refused, for it has an account below it.
    METER + "AccountService/CloseAccount": lambda account, _: accounts.CloseAccountRequest(
        account=account
    ),
    METER + "AccountService/RotateApiKey": lambda _, things: accounts.RotateApiKeyRequest(
        key_id=things.live_key_id, grace_seconds=-1
    ),
    METER + "AccountService/RevokeApiKey": lambda _, things: accounts.RevokeApiKeyRequest(
        key_id=things.revoked_key_id
    ),
    BILLING + "PreviewInvoice": lambda account, _: billing.PreviewInvoiceRequest(account=account),
    BILLING + "GetInvoice": lambda _, things: billing.GetInvoiceRequest(number=things.invoice),
    BILLING + "ExplainInvoiceLine": lambda _, things: billing.ExplainInvoiceLineRequest(
        number=things.invoice, line=1
    ),
    BILLING + "ListLineEvents": lambda _, things: billing.ListLineEventsRequest(
        number=things.invoice, line=1
    ),
}
# Calls that name no account: about everything, or about what the caller's scopes cover.
UNNAMED: Final[Mapping[str, Any]] = {
    # A stream that begins without opening.
    METER + "MeterService/StreamUsage": meter.StreamUsageRequest(heartbeat=meter.Heartbeat()),
    METER + "MeterService/RecordUsage": meter.RecordUsageRequest(),
    METER + "MeterService/CorrectUsage": meter.CorrectUsageRequest(),
    METER + "MeterService/ListCorrections": meter.ListCorrectionsRequest(),
    METER + "MeterService/ListObservations": meter.ListObservationsRequest(),
    METER + "MeterService/ListQuarantine": meter.ListQuarantineRequest(),
    METER + "MeterService/ReleaseQuarantine": meter.ReleaseQuarantineRequest(quarantine_id=9),
    METER + "MeterService/RejectQuarantine": meter.RejectQuarantineRequest(),
    f"{ENVOY}/StreamAccessLogs": envoy.AccessLogMessage(),
    OTLP + "trace.v1.TraceService/Export": trace_service_pb2.ExportTraceServiceRequest(),
    OTLP + "logs.v1.LogsService/Export": logs_service_pb2.ExportLogsServiceRequest(),
    METER + "EngineService/QueryEngineDrift": engines.QueryEngineDriftRequest(),
    METER + "EnergyService/RecordEnergy": energy.RecordEnergyRequest(),
    METER + "EnergyService/QueryEfficiency": energy.QueryEfficiencyRequest(),
    METER + "EnergyService/ListEnergySources": energy.ListEnergySourcesRequest(),
    METER + "EnergyService/SetFactory": energy.SetFactoryRequest(toml="no"),
    METER + "EnergyService/ListFactoryVersions": energy.ListFactoryVersionsRequest(),
    METER + "EnergyService/GetFactory": energy.GetFactoryRequest(),
    METER + "EnergyService/MarkSoftware": energy.MarkSoftwareRequest(),
    METER + "EnergyService/ListSoftwareMarks": energy.ListSoftwareMarksRequest(),
    METER + "AuditService/ListAuditEntries": audit_service_pb2.ListAuditEntriesRequest(page_size=1),
    METER + "ClockService/GetClock": clock_service_pb2.GetClockRequest(),
    METER + "ClockService/AdvanceClock": clock_service_pb2.AdvanceClockRequest(),
    BILLING + "ImportPriceBook": billing.ImportPriceBookRequest(toml="no"),
    BILLING + "ListPriceVersions": billing.ListPriceVersionsRequest(),
    BILLING + "GetPriceBook": billing.GetPriceBookRequest(book="nobody"),
    BILLING + "ExplainPrice": billing.ExplainPriceRequest(),
    BILLING + "SetContract": billing.SetContractRequest(toml="no"),
    BILLING + "ListContracts": billing.ListContractsRequest(),
    BILLING + "GetContract": billing.GetContractRequest(contract="nobody"),
    BILLING + "PreviewTerms": billing.PreviewTermsRequest(),
    BILLING + "DiffPrices": billing.DiffPricesRequest(month="no"),
    BILLING + "CloseMonth": billing.CloseMonthRequest(month="no"),
    BILLING + "QueryRevenue": billing.QueryRevenueRequest(),
    BILLING + "ListPeriods": billing.ListPeriodsRequest(page_size=-1),
    BILLING + "ApproveInvoice": billing.ApproveInvoiceRequest(),
    BILLING + "ReopenPeriod": billing.ReopenPeriodRequest(),
    BILLING + "CorrectPeriod": billing.CorrectPeriodRequest(),
    BILLING + "CreditInvoice": billing.CreditInvoiceRequest(),
    BILLING + "VoidInvoice": billing.VoidInvoiceRequest(),
    BILLING + "RecordPayment": billing.RecordPaymentRequest(),
}
