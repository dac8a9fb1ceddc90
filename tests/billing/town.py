"""A town on a real Postgres: accounts, recorded and counted events, and billing over them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg

from billing.app import make_parts
from billing.setting_terms import BookTaken, ContractTaken
from billing.wire.desk import BillingParts
from meter.corrections import ById, NewCorrection, Search, from_batch
from meter.counting.follower import Follower
from meter.domain.event import Dimensions, DimensionTable, EventBatch, Origin
from meter.domain.tokens import TokenClass
from meter.hosting import Host
from meter.journal.commit import Submission, commit_group
from meter.runtime.engine import DatabaseRole, make_engine
from meter.store.accounts import AccountStore
from meter.store.audit_log import ChangeLog
from meter.store.consumption import ConsumptionStore
from meter.store.corrections import CorrectionStore
from meter.store.cuts import CutStore
from meter.store.engines import EngineDriftStore
from meter.store.evidence import EvidenceStore
from meter.store.factories import FactoryStore
from meter.store.facts import FactStore
from meter.store.reporters import ReporterStore
from meter.store.sums import SumStore
from tests.clock import FakeClock
from tests.meter.plain_events import PlainEvent, to_batch
from tests.meter.store.recording import counting_of, owner

TIERS = ("free", "medium", "high", "premium", "ultra")
Moves = Sequence[tuple[int, str | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TownEvent:
    """An event by names; `classes` as truth files write them."""

    account: str
    end_ms: int
    classes: Mapping[str, int]
    model: str = "llama-4"
    served_model: str = ""
    tier: str = "high"
    mode: str = "online"
    pool: str = ""
    request_id: str = ""
    event_id: int = 0


class Town:
    """What billing's tests stand on; all of it goes through the product's own stores."""

    def __init__(self, database_url: str, *, now_ms: int) -> None:
        self.database_url = database_url
        self.clock = FakeClock(now_ms)
        self.engine = make_engine(database_url, pool_size=8)
        # As the services of a meter, and jobs, do: see `meter.lending`.
        self.lent = make_engine(database_url, pool_size=8, role=DatabaseRole.BILLING)
        self.engines = (self.engine, self.lent)
        self.accounts = AccountStore(self.engine, self.clock)
        self.journal = owner(self.engine)
        self._usage = counting_of(self.engine)
        self.host = Host(
            engine=self.lent,
            clock=self.clock,
            is_driven=True,
            tiers=TIERS,
            tree=lambda: self.accounts.load().tree,
            facts=FactStore(self.lent),
            sums=SumStore(self.lent),
            change_log=ChangeLog(),
            reporters=ReporterStore(self.engine),
            cuts=CutStore(self.engine),
            evidence=EvidenceStore(self.lent),
            consumption=ConsumptionStore(self.lent, factories=FactoryStore(self.lent)),
            engine_drifts=EngineDriftStore(self.lent),
        )
        self.billing: BillingParts = make_parts(self.host)

    def add_account(
        self, account_id: str, *, handle: str = "", moves: Moves = ((0, None),)
    ) -> None:
        """Add an account whose parents are as told, from instants on edges; no rule is asked."""
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            connection.execute(
                "INSERT INTO accounts VALUES (%s, %s, to_timestamp(%s))",
                (account_id, handle or account_id, moves[0][0] / 1000),
            )
            for start_ms, parent_id in moves:
                connection.execute(
                    "INSERT INTO account_parents VALUES (%s, to_timestamp(%s), %s)",
                    (account_id, start_ms / 1000, parent_id),
                )
            connection.execute("UPDATE registry SET version = version + 1")

    def record(self, *events: TownEvent, count: bool = True) -> None:
        """Record events as one segment; without `count` they are not in usage yet."""
        self._commit(Submission(origin=self._origin(), batch=_to_batch(events)), count=count)

    def correct(self, event_id: int, *, after: TownEvent | None = None) -> None:
        """Void the event with this id, or count another in its place."""
        wanted = ById(event_id=event_id.to_bytes(16))
        found = CorrectionStore(self.engine, own_shard=lambda: 0).find_event(
            Search(event=wanted, account_id="", start_ms=0, end_ms=None)
        )
        correction = NewCorrection(
            target=found.target,
            before=found.event,
            after=None if after is None else from_batch(_to_batch([after])),
            reported=found.reported,
            key_id="key_1",
            reason="a test",
        )
        batch = correction.to_batch(DimensionTable())
        self._commit(Submission(origin=self._origin(), batch=batch, corrects=correction))

    def _origin(self) -> Origin:
        return Origin(account_id="", key_id="key_1", received_ms=self.clock.now)

    def _commit(self, submission: Submission, *, count: bool = True) -> None:
        commit_group(self.journal, [submission], now_ms=self.clock.now_ms)
        if count:
            self.count()

    def count(self) -> None:
        """Add all that was recorded to usage."""
        follower = Follower(
            self._usage,
            now_ms=self.clock.now_ms,
            monotonic_seconds=lambda: 0.0,
            on_counted=lambda _: None,
        )
        while follower.count_once():
            pass

    def import_book(self, toml: str, *, correct: bool = False) -> BookTaken:
        """Take in a version of a price book."""
        return self.billing.setting.import_book(toml, key_id="key_1", correct_issued=correct)

    def set_contract(self, toml: str, *, correct: bool = False) -> ContractTaken:
        """Take in a version of a contract."""
        return self.billing.setting.set_contract(toml, key_id="key_1", correct_issued=correct)

    def ask(self, question: str) -> list[tuple[object, ...]]:
        """Return the rows of a question put by the superuser."""
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            return connection.execute(question.encode()).fetchall()


@contextmanager
def town_on(database_url: str, *, now_ms: int) -> Iterator[Town]:
    """A town for the time of the block."""
    town = Town(database_url, now_ms=now_ms)
    try:
        yield town
    finally:
        town.engine.dispose()
        town.lent.dispose()


def book_toml(
    *prices: str, book: str = "list", start: str = "2026-01-01T00:00:00", zone: str = "UTC"
) -> str:
    """Return a price book for llama-4 with these lines, or with everything at 3."""
    lines = "\n".join(prices or ('all = "3"',))
    return (
        f'format = 1\nbook = "{book}"\nfrom = {start}\nzone = "{zone}"\ncurrency = "USD"\n'
        f'missing = "hold"\n[models."llama-4"]\n{lines}\n'
    )


def contract_toml(
    contract: str = "acme-2026",
    *,
    covers: str = "acme",
    start: str = "2026-10-01T00:00:00",
    until: str = "",
    zone: str = "Europe/Berlin",
    book: str = "list",
    series: str = "NG",
    extra: str = "",
) -> str:
    """Return a contract's file."""
    end = f"until = {until}\n" if until else ""
    return (
        f'format = 1\ncontract = "{contract}"\nfrom = {start}\n{end}zone = "{zone}"\n'
        f'currency = "USD"\nbook = "{book}"\ncovers = ["id:{covers}"]\n'
        'seller = "nimbus-gmbh"\nbuyer = "acme-sa"\n'
        '[parties.nimbus-gmbh]\nname = "Nimbus GmbH"\naddress = ["Torstr. 1", "10119 Berlin"]\n'
        'tax_id = "DE123456789"\n'
        '[parties.acme-sa]\nname = "ACME SA"\naddress = ["1 rue X", "75001 Paris"]\n'
        f'[document]\nkind = "invoice"\nseries = "{series}"\n{extra}'
    )


def _to_batch(events: Sequence[TownEvent]) -> EventBatch:
    table = DimensionTable()
    plain = [
        PlainEvent(
            dimension=table.intern(_dimensions(event)),
            end_ms=event.end_ms,
            tokens={int(TokenClass[it.upper()]): n for it, n in event.classes.items()},
            request_id=event.request_id,
            event_id=event.event_id.to_bytes(16) if event.event_id else b"",
        )
        for event in events
    ]
    return to_batch(plain, table=table)


def _dimensions(event: TownEvent) -> Dimensions:
    mode = {"online": 1, "batch": 2}[event.mode]
    served = event.served_model or event.model
    return Dimensions(event.account, event.model, served, event.tier, mode, event.pool, "")
