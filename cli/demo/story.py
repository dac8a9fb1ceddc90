"""The demo from its first line to its last: what is done and printed, and in which order."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Final

from cli.connection import Client
from cli.demo import opening, power
from cli.demo.bills import Bill, keep_pages, read_bills
from cli.demo.check import Oracle, Verdict, judge, read_counted, read_sent
from cli.demo.children import child, undisturbed
from cli.demo.exporter import HOST, run_exporter
from cli.demo.installation import Installation
from cli.demo.month import Listener, Month, Outage
from cli.demo.picture import draw
from cli.demo.power import Day, Energy, SitePower, TierPower, TierRank
from cli.demo.screen import Screen
from cli.demo.servers import Plan, running_servers
from cli.demo.summary import write_summary
from cli.demo.teams import RESEARCH, RESEARCH_DAY_TOKENS
from cli.demo.world import (
    BEGIN,
    BOARDS,
    CLOCK_CHANGE,
    CUSTOMERS,
    DAYS,
    MONTH,
    MOVE,
    SERVERS,
)
from cli.drawing import PictureImpossible
from cli.simulate.server import Progress
from tokenworks.billing.v1.billing_service_pb2 import InvoiceSummary

RESEND_PERCENT: Final = 1.0
# The invoice that is shown whole, and the line of it that is explained.
_SHOWN: Final = "auckland"
_EXPLAINED: Final = {"tier": "premium", "token_class": "output"}
# Folders of what is kept.
INSTALLATION: Final = "installation"
_FOLDERS: Final = ("truth", "terms", "logs")
_INTRODUCTION: Final = """\
TOKENWORKS DEMO: October 2026 in a token factory, in a minute or two

  simulated   time, {servers} inference servers (processes), {boards} GPUs (an exporter's process),
              the customers, their requests, their contracts and all prices
  real        the meter and its Postgres, the wire, the client in each server, the accounts of
              energy, the bills: all that you would install; none of it knows of the demo

"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Books:
    """What is found when the month is over."""

    bills: list[Bill]
    tiers: list[TierPower]
    energy: Energy


class Story:
    """One run of the demo in a folder of its own, which is there and empty."""

    def __init__(self, out: Path, *, event_count: int, seed: int) -> None:
        """Take where everything is kept, and how much of it there is."""
        self._out = out
        self._event_count = event_count
        self._seed = seed
        self._screen = Screen(event_count=event_count)
        self._outages: list[Outage] = []
        self._faults: list[str] = []
        self._begin = time.monotonic()

    def tell(self) -> bool:
        """Tell all of it; returns whether everything added up. Raises CommandError."""
        for name in _FOLDERS:
            (self._out / name).mkdir()
        self._introduce()
        with self._running() as installation:
            servers = self._live_through(installation)
            with installation.connected() as client:
                verdict, books = self._settle(client, installation)
        write_summary(
            self._out / "summary.json",
            verdict=verdict,
            bills=books.bills,
            energy=books.energy,
            tiers=books.tiers,
            kill_count=len(self._outages),
            resent_count=sum(it.resent_batches for it in servers),
        )
        self._faults += verdict.faults
        self._conclude(verdict, servers=servers)
        return not self._faults

    def _introduce(self) -> None:
        line = self._screen.line
        boards = sum(it.count for it in BOARDS.values())
        for row in _INTRODUCTION.format(servers=len(SERVERS), boards=boards).splitlines():
            line(row)
        rows = [["customer", "account", "month in", "book", "teams"]]
        for customer in CUSTOMERS:
            teams = ", ".join(team.handle for team in customer.teams)
            if customer.account == RESEARCH:
                teams = f"{RESEARCH_DAY_TOKENS // 10**6} M tokens a day at $150 per M"
            rows.append([customer.name, customer.account, customer.zone.key, customer.book, teams])
        self._screen.table(rows, left=5)
        line()
        line(
            f"  {self._event_count:,} requests; {RESEND_PERCENT:g} % of the batches are sent twice"
            " on purpose, and the meter is killed once."
        )
        self._screen.section("The month, as it happens")

    @contextmanager
    def _running(self) -> Iterator[Installation]:
        """The exporter and the installation for the time of the block, ready for the month."""
        logs = self._out / "logs"
        begin = (run_exporter, self._event_count, self._seed)
        with child(*begin, name="exporter", logs=logs) as exporter:
            port = exporter.recv()
            installation = Installation(
                self._out / INSTALLATION,
                energy_sources={pool: f"http://{HOST}:{port}/{pool}/metrics" for pool in BOARDS},
                log=logs / "meter.log",
            )
            try:
                self._screen.note("  starting Postgres and the meter")
                installation.start()
                exporter.send((installation.target, installation.api_key))
                yield installation
            finally:
                self._screen.settle()
                self._screen.note("  stopping the meter and Postgres")
                with undisturbed():
                    installation.stop()

    def _live_through(self, installation: Installation) -> list[Progress]:
        with installation.connected() as client:
            opening.describe_factory(client, folder=self._out / "terms")
            opening.open_accounts(client)
            opening.agree_on_terms(client, folder=self._out / "terms")
            api_key = opening.create_server_key(client)
        self._screen.on_date(
            BEGIN,
            f"the clock begins; {len(CUSTOMERS)} customers with accounts and contracts, two price"
            " books",
        )
        plan = Plan(
            target=installation.target,
            api_key=api_key,
            event_count=self._event_count,
            seed=self._seed,
            resend_percent=RESEND_PERCENT,
            truth=self._out / "truth",
            logs=self._out / "logs",
        )
        with running_servers(
            plan, on_progress=lambda count: self._screen.advance(acknowledged=count)
        ) as servers:
            month = Month(
                installation, servers, terms=self._out / "terms", listener=self._listener()
            )
            month.live_through()
            self._screen.settle()
            return servers.progress

    def _listener(self) -> Listener:
        return Listener(
            on_day=self._on_day,
            on_prices=lambda now: self._screen.on_date(
                now, "new prices are imported; they hold from 15 October, 00:00 in Los Angeles"
            ),
            on_preview=self._on_preview,
            on_kill=lambda now, under_way: self._screen.on_date(
                now,
                "the meter freezes, and is ended with kill -9 while it owes"
                f" {under_way:,} acknowledgements",
            ),
            on_recovery=self._on_recovery,
            on_move=lambda now: self._screen.on_date(
                now,
                f"a team is to change hands: from 20 October on, {MOVE.account} is billed to"
                f" {MOVE.parent}",
            ),
        )

    def _on_day(self, now: datetime) -> None:
        self._screen.advance(day=now)
        if now.date() == CLOCK_CHANGE.date():
            self._screen.on_date(now, "Berlin's clocks go back: its day has 25 hours")

    def _on_preview(self, now: datetime, previews: Sequence[InvoiceSummary]) -> None:
        rows = [
            f"{it.account:<13}{Decimal(it.total):>12,.2f} {it.currency} so far,"
            f" {it.line_count:>2} lines"
            for it in previews
        ]
        self._screen.on_date(now, "\n".join(["a live preview of each customer's month:", *rows]))

    def _on_recovery(self, outage: Outage) -> None:
        self._outages.append(outage)
        self._screen.below(
            f"it is back after {outage.seconds:.1f} s, on the Postgres that had lived on;"
            f" {outage.repeated_batches} batches came again\nby themselves, and are counted once"
        )

    def _settle(self, client: Client, installation: Installation) -> tuple[Verdict, _Books]:
        """Close the month, show what it came to, and have it checked meanwhile."""
        self._screen.section("The invoices")
        # An invoice tells of the energy that is attributed when it is issued.
        power.wait_until_attributed(client)
        self._type(installation, "billing", "close", MONTH, "--early")
        oracle = Oracle(installation.database, terms=self._out / "terms", truth=self._out / "truth")
        try:
            bills = read_bills(client)
            self._show(installation, bills)
            keep_pages(client, bills, folder=self._out / "invoices")
            books = self._weigh(client, bills)
            self._screen.section("The check")
            self._screen.note("  reading the truth files, and pricing each request on its own")
            verdict = judge(
                event_count=self._event_count,
                sent=read_sent(self._out / "truth"),
                counted=read_counted(client),
                bills=bills,
                oracle=oracle,
            )
        finally:
            oracle.stop()
        return verdict, books

    def _show(self, installation: Installation, bills: Sequence[Bill]) -> None:
        """Show an invoice whole, and a line of it down to the journal."""
        for bill in (it for it in bills if it.account == _SHOWN):
            self._screen.line()
            self._type(installation, "invoices", "show", bill.number)
            self._screen.line()
            line = bill.find_line(**_EXPLAINED)
            self._type(installation, "invoices", "explain", bill.number, str(line))

    def _type(self, installation: Installation, *words: str) -> None:
        """Run a command as an operator does, and show it; that it failed is a fault."""
        printed, fault = installation.run(*words)
        self._screen.shell(" ".join(words), printed)
        if fault is not None:
            self._faults.append(fault)

    def _weigh(self, client: Client, bills: Sequence[Bill]) -> _Books:
        """Show what the tokens took and brought in, and draw it."""
        days, energy = power.read_days(client), power.read_energy(client)
        tiers = power.read_tiers(client, days=days)
        self._screen.section("Tokens, joules, dollars")
        self._screen.line("  the tiers by dollars per megawatt-hour of what their tokens took")
        self._screen.line()
        self._screen.table(_tier_rows(power.rank(tiers)), left=2)
        self._screen.line()
        for row in (*_energy_rows(energy), *_site_rows(power.read_sites(client))):
            self._screen.line(row)
        good = sum(day.is_as_promised for day in days)
        month = next((it.total for it in bills if it.account == RESEARCH), "0")
        self._screen.line(
            f"  {RESEARCH}   {RESEARCH_DAY_TOKENS:,} tokens and 7,500.00 USD on {good} of"
            f" {len(DAYS)} days, {Decimal(month):,.2f} USD in the month"
        )
        self._picture(client, days=days)
        self._faults += _power_faults(energy, research_days=good)
        return _Books(bills=list(bills), tiers=tiers, energy=energy)

    def _picture(self, client: Client, *, days: Sequence[Day]) -> None:
        path = self._out / "month.png"
        try:
            draw(path, steps=power.read_steps(client), days=days, outages=self._outages)
        except PictureImpossible as error:
            self._screen.line()
            self._screen.line(f"  NO PICTURE: {error}")

    def _conclude(self, verdict: Verdict, *, servers: Sequence[Progress]) -> None:
        line = self._screen.line
        batches, resent = (
            sum(it.batches for it in servers),
            sum(it.resent_batches for it in servers),
        )
        line(f"  kept in {self._out}:")
        line("  summary.json, month.png, the invoices as pages, terms, truth files, logs, database")
        line(
            f"  {batches:,} batches, {resent} of them sent twice on purpose;"
            f" {time.monotonic() - self._begin:.0f} s in all"
        )
        line("  the oracle prices each request on its own, from truth files and terms alone")
        line()
        for fault in self._faults:
            line(f"  WRONG: {fault}")
        line(check_line(verdict))


def check_line(verdict: Verdict) -> str:
    """Say in a line whether tokens and money are the same on all sides."""
    sent, counted = verdict.sent.tokens.total(), verdict.counted.tokens.total()
    billed = verdict.billed.total()
    money, own = sum(verdict.money.values()), sum(verdict.oracle_money.values())
    if sent == counted == billed:
        tokens = f"sent = counted = billed: {sent:,} tokens"
    else:
        tokens = f"sent {sent:,}, counted {counted:,}, billed {billed:,} tokens"
    if money == own:
        amounts = f"money = oracle's: {money:,.2f} USD"
    else:
        amounts = f"money {money:,.2f}, oracle's {own:,.2f} USD"
    return f"{tokens}; lost {verdict.lost:,}, doubled {verdict.doubled:,}; {amounts}"


def _tier_rows(ranks: Sequence[TierRank]) -> list[list[str]]:
    head = ["tier", "pool", "M output", "kWh", "tokens/J", "USD", "USD/MWh", "power", "revenue"]
    rows = [
        [
            it.tier.tier,
            it.tier.pool,
            f"{Decimal(it.tier.output_tokens) / 10**6:,.1f}",
            f"{Decimal(it.tier.energy_mj) / power.MJ_OF_KWH:,.1f}",
            it.tier.tokens_per_joule,
            f"{it.tier.revenue:,.2f}",
            f"{Decimal(it.tier.usd_per_mwh):,.2f}",
            f"{Decimal(it.power_share) * 100:.1f} %",
            f"{Decimal(it.revenue_share) * 100:.1f} %",
        ]
        for it in ranks
    ]
    return [head, *rows]


def _energy_rows(energy: Energy) -> Iterator[str]:
    parts = [
        f"{energy_mj:,} {reason.replace('_', ' ')}"
        for reason, energy_mj in sorted(energy.unattributed_mj.items())
    ]
    yield f"  energy     {energy.measured_mj:,} mJ measured"
    yield " + ".join([f"             = {energy.attributed_mj:,} to tokens", *parts])


def _site_rows(sites: Sequence[SitePower]) -> Iterator[str]:
    for it in sites:
        yield (
            f"  {it.site:<9}  {it.highest_watts:,} W in the highest hour, losses included (PUE"
            f" {it.pue}, {it.basis}), of {it.contracted_watts:,} W"
        )


def _power_faults(energy: Energy, *, research_days: int) -> Iterator[str]:
    if energy.measured_mj != energy.attributed_mj + energy.unattributed_total_mj:
        yield "energy that was measured is not what is attributed and unattributed"
    if energy.measured_mj == 0:
        yield "no energy was measured"
    if research_days != len(DAYS):
        yield f"{RESEARCH}: only {research_days} days are as they should be"
