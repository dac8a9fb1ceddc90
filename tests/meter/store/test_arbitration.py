"""Requests that several report, decided in a real Postgres: each is counted once, by the best."""

import random
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event, current_thread
from typing import Final

import pytest
from sqlalchemy import Engine

from meter.arbiter import Settlement
from meter.domain.errors import Unavailable
from meter.domain.outcome import Outcome
from meter.journal.commit import Submission
from meter.sources.observation import Observation, Source, rank
from meter.store.journal import JournalStore, JournalTransaction
from meter.store.usage import UsageStore
from tests.meter.arbitrating import Settling
from tests.meter.observing import INPUT, OUTPUT, Reporting, outcomes_of, seen
from tests.meter.store.recording import (
    WAIT_SECONDS_MAX,
    ask,
    ask_one,
    commit,
    counting_of,
    follow,
    owner,
)

WAITING: Final = "SELECT count(*) FROM observations WHERE state = 1"
CORRECTIONS: Final = "SELECT count(*) FROM corrections"
CLAIMS: Final = (
    "SELECT source, report_rank, token_count, correction_id FROM event_claims"
    " WHERE source IS NOT NULL"
)
STATES: Final = "SELECT source, token_count, state FROM observations ORDER BY observation_id"
SUMS: Final = "SELECT sum(input)::int, sum(output)::int, sum(request_count)::int FROM usage"


@pytest.fixture
def report() -> Reporting:
    """Makes submissions of reports."""
    return Reporting()


@pytest.fixture
def settle(engine: Engine, journal: JournalStore) -> Settling:
    """Decides what waits, in shard 0."""
    return Settling(engine, journal)


def sums(usage: UsageStore, database_url: str) -> tuple[int, ...]:
    """Return the input tokens, output tokens and requests that are counted."""
    follow(usage).count_once()
    return ask(database_url, SUMS)[0]


def tokens(output: int, prompt: int = 10) -> dict[int, int]:
    """Return the tokens of a report."""
    return {INPUT: prompt, OUTPUT: output}


def test_arbitrate__better_report_is_counted_by_one_correction(
    journal: JournalStore, usage: UsageStore, report: Reporting, settle: Settling, database_url: str
) -> None:
    """The better report is counted, the first one kept beside it; looking again changes nothing."""
    commit(journal, report(seen("s", tokens=tokens(5)), source=Source.SPAN))
    commit(journal, report(seen("p", tokens=tokens(7)), source=Source.PROXY))
    for _ in range(2):
        settle()
        assert sums(usage, database_url) == (10, 7, 1)
        assert ask(database_url, STATES) == [(1, 17, 3), (6, 15, 2)]
        assert ask(database_url, CLAIMS) == [(1, rank(Source.PROXY, quality=1), 17, 1)]
        assert ask_one(database_url, CORRECTIONS) == 1


def test_arbitrate__same_bill_needs_no_correction(
    journal: JournalStore, usage: UsageStore, report: Reporting, settle: Settling, database_url: str
) -> None:
    """A better report that says the same is what counts from then on, without a correction."""
    commit(journal, report(seen("s", end_ms=seen().end_ms - 900_000), source=Source.SPAN))
    commit(journal, report(seen("p"), source=Source.PROXY))
    settle()
    assert ask_one(database_url, CORRECTIONS) == 0
    assert ask(database_url, STATES) == [(1, 15, 3), (6, 15, 2)]
    commit(journal, report(seen("e", tokens=tokens(9)), source=Source.ENVOY))
    settle()
    assert sums(usage, database_url) == (10, 5, 1)


def test_arbitrate__choices_add_up(
    journal: JournalStore, usage: UsageStore, report: Reporting, settle: Settling, database_url: str
) -> None:
    """Four answers to one prompt are one request with all of them, in whatever calls they came."""
    choices = [seen(f"c{n}", tokens=tokens(n), is_choice=True) for n in (1, 2, 3, 4)]
    commit(journal, report(choices[0]))
    commit(journal, report(choices[1]), report(choices[2]))
    settle()
    assert sums(usage, database_url) == (10, 6, 1)
    commit(journal, report(choices[3]), report(choices[0]), report(choices[2]))
    settle()
    assert sums(usage, database_url) == (10, 10, 1)
    assert ask_one(database_url, CORRECTIONS) == 2
    commit(journal, report(seen("g", tokens=tokens(11)), source=Source.ENVOY))
    settle()
    assert sums(usage, database_url) == (10, 11, 1)
    assert {state for _, _, state in ask(database_url, STATES)} == {2, 3}


def test_arbitrate__id_that_is_used_again(
    journal: JournalStore, usage: UsageStore, report: Reporting, settle: Settling, database_url: str
) -> None:
    """A later call waits whichever source told of it, and whoever's report is counted by then."""
    first, again = seen("c1", tokens=tokens(5), is_choice=True, arrival_ns=1), seen("e2")
    later = seen("c2", tokens=tokens(9), is_choice=True, arrival_ns=2)
    commit(journal, report(first))
    commit(journal, report(seen("e1", tokens=tokens(7)), source=Source.ENVOY))
    settle()
    for _ in range(2):
        (envoy,) = commit(journal, report(again, source=Source.ENVOY))
        (span,) = commit(journal, report(later))
        settle()
        assert sums(usage, database_url) == (10, 7, 1)
        assert ask_one(database_url, "SELECT count(*) FROM quarantine WHERE outcome = 61") == 2
    assert [*outcomes_of(envoy), *outcomes_of(span)] == [Outcome.DUPLICATE] * 2


def test_arbitrate__killed_between_the_correction_and_its_settlement(
    journal: JournalStore,
    report: Reporting,
    settle: Settling,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither is on disk without the other: it is decided again, and corrected once."""
    commit(journal, report(seen("s"), source=Source.SPAN))
    commit(journal, report(seen("p", tokens=tokens(7)), source=Source.PROXY))

    def die(*_: object, **__: object) -> None:
        raise Unavailable("STORE_UNAVAILABLE", "killed")  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(JournalTransaction, "settle", die)
        with pytest.raises(Unavailable):
            settle()
    assert ask_one(database_url, CORRECTIONS) == 0
    assert ask_one(database_url, WAITING) == 1
    settle.after_append = die
    with pytest.raises(Unavailable):
        settle()
    settle.after_append = lambda: None
    settle()
    assert ask_one(database_url, CORRECTIONS) == 1
    assert ask(database_url, STATES) == [(1, 17, 3), (6, 15, 2)]


def test_arbitrate__report_between_the_look_and_the_correction(
    journal: JournalStore, usage: UsageStore, report: Reporting, settle: Settling, database_url: str
) -> None:
    """A choice that comes while others are being added, and is passed over, is looked at again."""
    one, two, three = (seen(f"c{n}", tokens=tokens(n), is_choice=True) for n in (1, 2, 3))
    commit(journal, report(one), report(two))

    def come() -> None:
        settle.before_append = lambda: None
        commit(journal, report(three))
        key = ask_one(database_url, "SELECT event_key FROM event_claims")
        # Another server, that takes it for evidence.
        settle.store.keep_as_evidence([key.bytes], seen_id=2**62)

    settle.before_append = come
    settle()
    settle()
    assert sums(usage, database_url) == (10, 6, 1)


@pytest.mark.parametrize("is_billed_alike", [True, False])
def test_arbitrate__report_on_its_way_with_an_earlier_number(
    engine: Engine,
    journal: JournalStore,
    settle: Settling,
    monkeypatch: pytest.MonkeyPatch,
    *,
    database_url: str,
    is_billed_alike: bool,
) -> None:
    """What another server is writing has its number already, and is decided upon all the same."""
    report, other = Reporting(), owner(engine, shard=1)
    usage = counting_of(engine)
    numbered, looked = Event(), Event()

    def wait(*_: object, **__: object) -> None:
        if current_thread().name.startswith("other"):
            numbered.set()
            assert looked.wait(WAIT_SECONDS_MAX)

    monkeypatch.setattr(JournalTransaction, "save_producers", wait)
    commit(journal, report(seen("s"), source=Source.SPAN))
    with ThreadPoolExecutor(1, thread_name_prefix="other") as pool:
        late = report(seen("p", tokens=tokens(9)), source=Source.PROXY)
        writing = pool.submit(commit, other, late)
        assert numbered.wait(WAIT_SECONDS_MAX)
        later = tokens(5 if is_billed_alike else 7)
        commit(journal, report(seen("e", tokens=later), source=Source.ENVOY))

        def come(*_: object) -> None:
            looked.set()
            writing.result(WAIT_SECONDS_MAX)

        settle.before_append = come
        confirm = settle.store.confirm

        def come_and_confirm(settlements: Sequence[Settlement]) -> None:
            come()
            confirm(settlements)

        with monkeypatch.context() as patched:
            patched.setattr(settle.store, "confirm", come_and_confirm)
            settle()
    settle.before_append = lambda: None
    settle()
    assert sums(usage, database_url) == (10, 9, 1)


def test_arbitrate__two_at_the_same_time(
    engine: Engine, journal: JournalStore, report: Reporting, settle: Settling, database_url: str
) -> None:
    """Two servers that decide the same make one correction; the later one changes nothing."""
    other = Settling(engine, owner(engine, shard=1), shard=1)
    usages = [counting_of(engine), counting_of(engine, shard=1)]
    commit(journal, report(seen("s"), source=Source.SPAN))
    commit(journal, report(seen("p", tokens=tokens(7)), source=Source.PROXY))
    sums(usages[0], database_url)
    settle.before_append = other
    settle()
    settle.before_append = lambda: None
    sums(usages[1], database_url)
    assert ask_one(database_url, CORRECTIONS) == 1
    assert ask_one(database_url, WAITING) == 0
    assert sums(usages[0], database_url) == (10, 7, 1)


def test_arbitrate__of_another_shard_waits_until_it_is_counted(
    engine: Engine, journal: JournalStore, report: Reporting, database_url: str
) -> None:
    """What another server has recorded is corrected when it is counted, and holds up nobody."""
    settle = Settling(engine, owner(engine, shard=1), shard=1)
    usages = [counting_of(engine), counting_of(engine, shard=1)]
    commit(journal, report(seen("s"), source=Source.SPAN))
    commit(journal, report(seen("p", tokens=tokens(7)), source=Source.PROXY))
    settle()
    assert ask_one(database_url, WAITING) == 1
    sums(usages[0], database_url)
    settle()
    assert ask_one(database_url, WAITING) == 0
    assert sums(usages[1], database_url) == (10, 7, 1)


def test_arbitrate__claim_that_is_forgotten(
    journal: JournalStore, report: Reporting, settle: Settling, database_url: str
) -> None:
    """A report of a request that nobody remembers waits for nothing, and goes in its time."""
    end_ms = seen().end_ms
    commit(journal, report(seen("s"), source=Source.SPAN))
    commit(journal, report(seen("p", original={"n": 1}), source=Source.PROXY))
    journal.forget_claims(before_ms=end_ms + 1)
    settle()
    assert ask_one(database_url, WAITING) == 0
    settle.store.forget(before_ms=end_ms, originals_before_ms=end_ms)
    assert ask_one(database_url, "SELECT count(*) FROM observations") == 1
    settle.store.forget(before_ms=end_ms, originals_before_ms=end_ms + 1)
    assert ask_one(database_url, "SELECT count(*) FROM usage_originals") == 0
    settle.store.forget(before_ms=end_ms + 1, originals_before_ms=end_ms)
    assert ask_one(database_url, "SELECT count(*) FROM observations") == 0


def draw(random_: random.Random, number: int) -> tuple[Source, Observation]:
    """Return a report of one of three requests; its id says what it is."""
    source = random_.choice(list(Source))
    request_id = f"q{random_.randrange(3)}"
    is_choice = random_.random() < 0.4
    observation = seen(
        f"r{number}",
        request_id=request_id,
        tokens=tokens(random_.randint(1, 4), random_.choice([10, 20])),
        quality=random_.randint(1, 3),
        is_choice=is_choice,
        arrival_ns=random_.randrange(4) // 3,
    )
    return source, observation


def call_of(it: Observation) -> object:
    """Return what the reports of one call have in common."""
    return it.arrival_ns if it.is_choice else it.report_id


def oracle(reports: Sequence[tuple[Source, Observation]]) -> tuple[int, int]:
    """Return the prompt and the answer that are to be counted of one request's reports.

    Of each source's calls the first is looked at.
    """
    calls: dict[Source, object] = {}
    reports = [
        (source, it)
        for source, it in reports
        if calls.setdefault(source, call_of(it)) == call_of(it)
    ]
    ranked = [(rank(source, quality=it.quality), source, it) for source, it in reports]
    top = max(value for value, _, _ in ranked)
    _, source, best = next(each for each in ranked if each[0] == top)
    members: Sequence[Mapping[int, int]] = [best.tokens]
    if best.is_choice:
        members = [it.tokens for by, it in reports if it.is_choice and by is source]
    return max(it[INPUT] for it in members), sum(it[OUTPUT] for it in members)


@pytest.mark.parametrize("seed", range(4))
def test_arbitrate__any_order_of_reports_and_looks(
    journal: JournalStore, usage: UsageStore, settle: Settling, database_url: str, seed: int
) -> None:
    """Reports in any order, sent again, in groups, with looks at any time: the oracle's sums."""
    random_, report = random.Random(seed), Reporting()
    drawn = [draw(random_, number) for number in range(14)]
    group: list[Submission] = []
    new: set[str] = set()
    for place, (source, observation) in enumerate(drawn):
        # Of equals in one group any may be counted.
        if observation.request_id in new or random_.random() < 0.5:
            commit(journal, *group)
            group, new = [], set()
        new.add(observation.request_id)
        group.append(report(observation, source=source))
        if random_.random() < 0.3:
            again, sent = random_.choice(drawn[: place + 1])
            group.append(report(sent, source=again))
        if random_.random() < 0.4:
            settle()
    commit(journal, *group)
    settle()
    by_request: dict[str, list[tuple[Source, Observation]]] = {}
    for source, observation in drawn:
        by_request.setdefault(observation.request_id, []).append((source, observation))
    expected = [oracle(it) for it in by_request.values()]
    assert sums(usage, database_url) == (
        sum(prompt for prompt, _ in expected),
        sum(answer for _, answer in expected),
        len(expected),
    )
    assert ask_one(database_url, WAITING) == 0
    made = ask_one(database_url, CORRECTIONS)
    settle()
    assert ask_one(database_url, CORRECTIONS) == made
