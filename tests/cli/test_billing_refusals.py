"""What is refused of months and documents, over the real command: code, reason, what to do."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.process import Exit
from tests.acceptance.counted import wait_until_counted
from tests.billing.town import book_toml, contract_toml
from tests.cli.shell import Shell
from tests.postgres import Cluster
from tests.running_meter import RunningMeter, running_meter_on

FIRST, WHY = "NG-2026-000001", ("--reason", "a test")
TAX = '[tax]\ncategory = "S"\nrate = "19"\n'


@pytest.fixture(scope="module")
def meter(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMeter]:
    """A sandbox in September."""
    settings = {"sandbox_clock": "2026-09-10T00:00:00Z"}
    folder = tmp_path_factory.mktemp("refusals")
    with (
        cluster.database() as url,
        running_meter_on(url, folder=folder, settings=settings) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def shell(meter: RunningMeter, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """Whoever may do everything, in late December: acme has used 3 USD of September and October.

    September is billed by the first invoice; November, without usage, is open.
    """
    folder = tmp_path_factory.mktemp("terms")
    shell = Shell(meter.target, meter.api_key)
    shell.run("accounts", "create", "acme", "--id", "acme")
    shell.run("prices", "import", str(write(folder, book_toml(start="2026-09-01T00:00:00"))))
    shell.run("contracts", "set", str(write(folder, contract_toml(start="2026-09-01T00:00:00"))))
    shell.record("--input", "1000000")
    wait_until_counted(meter.database_url)
    shell.run("billing", "clock", "--to", "2026-10-10")
    shell.run("billing", "close", "2026-09")
    shell.record("--input", "1000000")
    wait_until_counted(meter.database_url)
    shell.run("billing", "clock", "--to", "2026-12-20")
    return shell


def write(folder: Path, toml: str) -> Path:
    """Write terms into a file and return its path."""
    path = folder / "terms.toml"
    path.write_text(toml, "utf-8")
    return path


def refuse(shell: Shell, *words: str, code: Exit, says: tuple[str, ...]) -> None:
    """Run a command that ends with this code, and says all this on stderr."""
    told = shell.run(*words, code=code).stderr
    assert all(it in told for it in says), told


def test_reopen__what_was_billed(shell: Shell) -> None:
    """An issued month is not opened again: the document is named, and what to do instead."""
    words = ("billing", "reopen", "acme-2026", "2026-09", *WHY)
    says = (FIRST, "credit or void", "PERIOD_ISSUED")
    refuse(shell, *words, code=Exit.REFUSED, says=says)


def test_close__out_of_order(shell: Shell) -> None:
    """A month behind an open one with usage is held, and the command that helps is told."""
    result = shell.run("billing", "close", "2026-11", code=Exit.REFUSED)
    assert "held: earlier month open" in result.stdout
    assert "tokenworks billing close 2026-10" in result.stdout


@pytest.mark.parametrize("part", [("--tokens", "1000001"), ("--amount", "3.01")])
def test_credit__above_its_line(shell: Shell, part: tuple[str, str]) -> None:
    """What is above a line is refused with what is left of it."""
    words = ("invoices", "credit", FIRST, "1", *part, *WHY)
    says = ("are left to credit", "CREDIT_TOO_HIGH")
    refuse(shell, *words, code=Exit.REFUSED, says=says)


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (("credit", FIRST, "9"), Exit.FAILED, "LINE_NOT_FOUND"),
        (("credit", FIRST, "1", "--amount", "0.001"), Exit.USAGE, "ARGUMENT_INVALID"),
        (("credit", FIRST, "1", "--amount", "1e0"), Exit.USAGE, "ARGUMENT_INVALID"),
        (("credit", FIRST, "1", "--tokens", "-1"), Exit.USAGE, "--tokens"),
        (("credit", "NG-2026-999999", "1"), Exit.FAILED, "INVOICE_NOT_FOUND"),
        (("void", "NG-2026-999999"), Exit.FAILED, "INVOICE_NOT_FOUND"),
        (("correct", "acme-2026", "2026-11"), Exit.REFUSED, "PERIOD_OPEN"),
        (("correct", "nobody", "2026-11"), Exit.FAILED, "PERIOD_NOT_FOUND"),
        (("correct", "acme-2026", "2026-13"), Exit.USAGE, "ARGUMENT_INVALID"),
        (("approve", "acme-2026", "2026-10"), Exit.REFUSED, "NOT_HELD"),
        (("approve", "acme-2026", "2027-03"), Exit.FAILED, "PERIOD_NOT_FOUND"),
    ],
)
def test_change__of_what_is_not_so(
    shell: Shell, words: tuple[str, ...], code: Exit, reason: str
) -> None:
    """What is not there, not so or not written so is refused by its own code and reason."""
    refuse(shell, "invoices", *words, *WHY, code=code, says=(reason,))


def test_pay__twice_and_too_much(shell: Shell) -> None:
    """A payment counts once; another of its name, or more than is left, is refused."""
    pay = ("invoices", "pay", FIRST)
    shell.run(*pay, "1.00", "--id", "bank-1")
    assert "recorded before" in shell.run(*pay, "1.00", "--id", "bank-1").stderr
    refuse(shell, *pay, "1.50", "--id", "bank-1", code=Exit.REFUSED, says=("PAYMENT_CONFLICT",))
    says = ("2.00 USD are left to pay", "PAYMENT_TOO_HIGH")
    refuse(shell, *pay, "2.01", "--id", "bank-2", code=Exit.REFUSED, says=says)
    for amount in ("-1", "0", "1e1", "0.001"):
        refuse(shell, *pay, "--id", "bank-3", "--", amount, code=Exit.USAGE, says=("amount",))
    void = ("invoices", "void", FIRST, *WHY)
    refuse(shell, *void, code=Exit.REFUSED, says=("credit its lines", "INVOICE_PAID"))


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (TAX.replace('category = "S"\n', ""), "category"),
        (TAX.replace('rate = "19"\n', ""), "rate"),
        (TAX.replace('"S"', '"AE"'), "rate"),
        (TAX.replace('"19"', '"119"'), "rate"),
        ('[[charges]]\nid = "a"\ntext = "A"\nquantity = "1"\nunit = "h"\nprice = "1"\n', "every"),
        ("minimum_is_wrong = 1\n", "minimum_is_wrong"),
        ('[closing]\nhold_jump = "NaN"\n', "hold_jump"),
        ("[closing]\ncollect_hours = 121\n", "collect_hours"),
    ],
)
def test_set_contract__contradicts_itself(
    shell: Shell, tmp_path: Path, body: str, place: str
) -> None:
    """Terms that cannot be meant are a usage error, with the line of the file."""
    path = write(tmp_path, contract_toml(start="2026-12-01T00:00:00", extra=body))
    refuse(shell, "contracts", "set", str(path), code=Exit.USAGE, says=(place, "terms.toml:"))


def test_set_contract__tax_without_an_address(shell: Shell, tmp_path: Path) -> None:
    """Who bills with tax has an address and a tax id, and who is billed has an address."""
    toml = contract_toml(start="2026-12-01T00:00:00", extra=TAX)
    for line in ('address = ["1 rue X", "75001 Paris"]\n', 'tax_id = "DE123456789"\n'):
        assert line in toml
        path = write(tmp_path, toml.replace(line, ""))
        says = (line.partition(" ")[0],)
        refuse(shell, "contracts", "set", str(path), code=Exit.USAGE, says=says)


def test_close__without_its_database(shell: Shell) -> None:
    """A job whose database is away fails, says so, and names no password."""
    del shell
    nobody = Shell("", "")
    nobody._settings = {"TOKENWORKS_DATABASE_URL": "postgresql://me:hidden@127.0.0.1:1/none"}  # noqa: SLF001
    for job in (("close", "2026-10"), ("replay", "2026-10")):
        told = nobody.run("billing", *job, code=Exit.FAILED)
        assert "database" in told.stderr
        assert "hidden" not in told.output
