"""What no test shows is not promised: judges a whole run by what it saw of a real server.

Runs last and only when the whole of `make test` does; see `tests/plugins/evidence.py`.
"""

import pytest
from google.protobuf.descriptor import ServiceDescriptor

import billing.metrics
import meter.metrics
from billing.errors import BillingReason
from meter.domain.errors import Reason
from meter.domain.outcome import Outcome
from meter.energy_metrics import ALWAYS_ZERO
from tests.plugins.evidence import EVIDENCE
from tokenworks.billing.v1 import billing_service_pb2
from tokenworks.meter.v1 import (
    account_service_pb2,
    audit_service_pb2,
    clock_service_pb2,
    energy_service_pb2,
    engine_service_pb2,
    meter_service_pb2,
    producer_service_pb2,
)


def test_rpc__was_called_over_a_real_server(pytestconfig: pytest.Config) -> None:
    """Each RPC of the contract was answered by a server during this run."""
    services: list[ServiceDescriptor] = [
        service
        for file in (
            account_service_pb2.DESCRIPTOR,
            audit_service_pb2.DESCRIPTOR,
            billing_service_pb2.DESCRIPTOR,
            clock_service_pb2.DESCRIPTOR,
            energy_service_pb2.DESCRIPTOR,
            engine_service_pb2.DESCRIPTOR,
            meter_service_pb2.DESCRIPTOR,
            producer_service_pb2.DESCRIPTOR,
        )
        for service in file.services_by_name.values()
    ]
    rpcs = {f"/{service.full_name}/{rpc.name}" for service in services for rpc in service.methods}
    missing = rpcs - pytestconfig.stash[EVIDENCE].rpcs
    assert not missing, sorted(missing)


def test_outcome__was_provoked_from_outside(pytestconfig: pytest.Config) -> None:
    """Each outcome was given to a caller during this run."""
    names = {outcome.name for outcome in Outcome}
    missing = names - pytestconfig.stash[EVIDENCE].outcomes
    assert not missing, sorted(missing)


def test_reason__was_provoked_from_outside(pytestconfig: pytest.Config) -> None:
    """Each error reason was given to a caller during this run."""
    names = {reason.value for each in (Reason, BillingReason) for reason in each}
    missing = names - pytestconfig.stash[EVIDENCE].reasons
    assert not missing, sorted(missing)


def test_metric__moved(pytestconfig: pytest.Config) -> None:
    """Each metric had a value other than 0 in some meter during this run, but what is always 0."""
    catalogue = (*meter.metrics.CATALOGUE, *billing.metrics.CATALOGUE)
    names = {metric.name for metric in catalogue}
    still = {metric.name for metric in ALWAYS_ZERO}
    moved = names & pytestconfig.stash[EVIDENCE].metrics
    assert moved == names - still, sorted(moved ^ (names - still))
