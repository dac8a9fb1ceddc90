"""A sandbox's billing office in November, which the tests of a module share."""

from collections.abc import Iterator

import pytest

from tests.billing.town import book_toml, contract_toml
from tests.billing.wire.office import BEGIN, NOVEMBER, Office
from tests.postgres import Cluster
from tests.running_meter import RunningMeter, running_meter_on
from tokenworks.billing.v1 import billing_service_pb2 as pb


@pytest.fixture(scope="module")
def meter(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMeter]:
    """A sandbox in October that all tests here share; each has accounts of its own."""
    folder = tmp_path_factory.mktemp("billing")
    settings = {"sandbox_clock": BEGIN}
    with (
        cluster.database() as url,
        running_meter_on(url, folder=folder, settings=settings) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def office(meter: RunningMeter) -> Office:
    """Whoever may do everything, after the accounts and terms of October and its close.

    acme and its team have a contract and usage; thin has usage that its book does not price.
    """
    office = Office(meter)
    for account, parent in (("acme", ""), ("team", "acme"), ("thin", ""), ("free", "")):
        office.session.create_account(account, parent=parent)
    for toml in (book_toml(), book_toml('input = "3"', book="thin-book")):
        office.call("ImportPriceBook", pb.ImportPriceBookRequest(toml=toml))
    for toml in (
        contract_toml(),
        contract_toml("of-thin", covers="thin", book="thin-book", series="TH"),
    ):
        office.call("SetContract", pb.SetContractRequest(toml=toml))
    office.use("acme", input=1_000_000, output=333_333)
    office.use("team", input=2_000_000)
    office.use("thin", input=1, output=2)
    office.use("free", input=5)
    office.advance(NOVEMBER)
    return office


@pytest.fixture(scope="module")
def closed(office: Office) -> pb.CloseMonthResponse:
    """October, closed."""
    answer = office.call("CloseMonth", pb.CloseMonthRequest(month="2026-10", early=True))
    assert isinstance(answer, pb.CloseMonthResponse)
    return answer
