"""Whatever order reports come in: each request once, the rest beside it; held against an oracle."""

import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Final, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from meter import segment
from meter.domain.errors import StoreRefusal
from meter.domain.event import SetAside
from meter.domain.outcome import Outcome
from meter.journal.commit import Submission, commit_group
from meter.sources.identity import distinct_id, event_key, request_event_id
from meter.sources.observation import Source
from meter.store.journal import JournalStore
from meter.wire.reported import observation_keys
from tests.meter.observing import INPUT, PROFILE, Reporting, outcomes_of, seen
from tests.meter.store.recording import WAIT_SECONDS_MAX, ask, commit, now_ms, origin_of, owner
from tokenworks.meter.v1 import usage_pb2

_SOURCES: Final = (Source.PROXY, Source.ENVOY, Source.SPAN)
# The first number that is a choice, and how many of them are of one call.
_CHOICES: Final = 2
_EXAMPLES: Final = count()
REPORTING: Final = Reporting()


class Said(NamedTuple):
    """One report: of which request, by whom, and which of theirs; 0 and 1 are no choices.

    The others are choices, two and two of one call.
    """

    request: int
    source: Source
    number: int

    @property
    def call(self) -> int:
        """Which of the source's calls of the request it is of."""
        return self.number if self.number < _CHOICES else _CHOICES + self.number // _CHOICES

    @property
    def tokens(self) -> int:
        """What it says, which no other report does."""
        return 1 + self.number + 10 * self.source + 1_000 * self.request

    def report_id(self, example: int) -> str:
        """Return its id."""
        return f"{example}:{self}"


@dataclass
class Oracle:
    """The rule in plain words: the first report counts, each other one is kept once.

    Of each source the first call is of the request; reports of its others are set aside.
    """

    counted: dict[int, Said] = field(default_factory=dict)
    calls: dict[tuple[int, Source], int] = field(default_factory=dict)
    evidence: set[Said] = field(default_factory=set)
    reused: set[Said] = field(default_factory=set)

    def take(self, said: Said) -> Outcome:
        """Return what becomes of a report."""
        call = self.calls.setdefault((said.request, said.source), said.call)
        if said.request not in self.counted:
            self.counted[said.request] = said
            return Outcome.RECORDED
        if said == self.counted[said.request] or said in self.evidence | self.reused:
            return Outcome.DUPLICATE
        if said.call != call:
            self.reused.add(said)
            return Outcome.REQUEST_ID_REUSED
        self.evidence.add(said)
        return Outcome.OBSERVED


_SAID: Final = st.builds(Said, st.integers(0, 3), st.sampled_from(_SOURCES), st.integers(0, 5))


@st.composite
def _calls(draw: st.DrawFn) -> tuple[Source, list[Said]]:
    """Draw what one call brings: it is of one source."""
    source = draw(st.sampled_from(_SOURCES))
    found = draw(st.lists(_SAID, min_size=1, max_size=5))
    return source, [said._replace(source=source) for said in found]


# A group: on which server, what calls it has, and whether its transaction fails at its end.
_GROUPS: Final = st.tuples(
    st.integers(0, 1), st.lists(_calls(), min_size=1, max_size=3), st.booleans()
)


@pytest.fixture
def servers(engine: Engine) -> list[JournalStore]:
    """Two servers of one installation."""
    return [owner(engine, shard=shard) for shard in (0, 1)]


def submission_of(source: Source, found: Sequence[Said], *, example: int) -> Submission:
    """Return a call's reports as a submission."""
    return REPORTING(
        *(
            seen(
                said.report_id(example),
                request_id=f"{example}:{said.request}",
                tokens={INPUT: said.tokens},
                is_choice=said.number >= _CHOICES,
                arrival_ns=said.call,
            )
            for said in found
        ),
        source=source,
    )


@settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    database=None,
)
@given(groups=st.lists(_GROUPS, min_size=1, max_size=6))
def test_observed__any_order_is_as_the_rule_has_it(
    servers: list[JournalStore],
    database_url: str,
    groups: list[tuple[int, list[tuple[Source, list[Said]]], bool]],
) -> None:
    """Resends, several in a group, two servers, transactions that fail: outcomes and rows agree."""
    example, oracle = next(_EXAMPLES), Oracle()
    for server, calls, fails in groups:
        group = [submission_of(source, found, example=example) for source, found in calls]
        if fails:
            refused = Submission(
                origin=origin_of(""),
                batch=group[0].batch.take(group[0].batch.end_ms < 0),
                set_aside=[SetAside(index=0, outcome=2**20, payload=b"")],
            )
            with pytest.raises(StoreRefusal):
                commit_group(servers[server], [*group, refused], now_ms=now_ms)
            continue
        outcomes = [list(outcomes_of(result)) for result in commit(servers[server], *group)]
        assert outcomes == [[oracle.take(said) for said in found] for _, found in calls]
    check_database(database_url, example=example, oracle=oracle)


def check_database(database_url: str, *, example: int, oracle: Oracle) -> None:
    """Hold the journal and the rows beside it against the oracle."""
    ids = {number: request_event_id(f"{example}:{number}", attempt=0) for number in range(4)}
    in_journal = Counter(recorded(database_url))
    for number, event_id in ids.items():
        found = {tokens: n for (each, tokens), n in in_journal.items() if each == event_id}
        said = oracle.counted.get(number)
        assert found == ({} if said is None else {said.tokens: 1})
    kept = Counter(
        (row[0].bytes, row[1].bytes, row[2])
        for row in ask(database_url, "SELECT event_key, report_key, token_count FROM observations")
    )
    expected = {
        (
            event_key("", event_id=ids[said.request]),
            key_of(said, example=example),
            said.tokens,
        )
        for said in oracle.evidence
    }
    keys = {event_key("", event_id=each) for each in ids.values()}
    assert {row: n for row, n in kept.items() if row[0] in keys} == dict.fromkeys(expected, 1)
    aside = Counter(
        (source, event.event_id, event.request_id, event.tokens[0].count)
        for source, event in set_aside(database_url)
        if event.request_id.startswith(f"{example}:")
    )
    assert aside == Counter(
        (
            said.source,
            str(uuid.UUID(bytes=(key := key_of(said, example=example)))),
            distinct_id(f"{example}:{said.request}", report=key, chars_max=256),
            said.tokens,
        )
        for said in oracle.reused
    )


def key_of(said: Said, *, example: int) -> bytes:
    """Return the key of a report."""
    (key,) = observation_keys(
        [
            seen(
                said.report_id(example),
                is_choice=said.number >= _CHOICES,
                arrival_ns=said.call,
            )
        ],
        source=said.source,
        profile=PROFILE,
    )
    return key


def set_aside(database_url: str) -> Iterator[tuple[int, usage_pb2.UsageEvent]]:
    """Yield who reported what is in quarantine, and the event as it is kept."""
    for source, payload in ask(
        database_url, "SELECT source, payload FROM quarantine WHERE outcome = 61"
    ):
        yield source, usage_pb2.UsageEvent.FromString(payload)


def recorded(database_url: str) -> Iterator[tuple[bytes, int]]:
    """Yield the id and the input of each event in the journal."""
    for (body,) in ask(database_url, "SELECT body FROM journal"):
        found = segment.decode(body)
        for place, tokens in enumerate(found.tokens[INPUT].tolist()):
            yield found.event_ids[16 * place : 16 * (place + 1)], tokens


def test_observed__two_servers_at_once(servers: list[JournalStore], database_url: str) -> None:
    """Both take every report at the same time: each request is counted by one of its reports."""
    example, random = next(_EXAMPLES), Random(8)
    everything = [Said(r, s, n) for r in range(4) for s in _SOURCES for n in range(6)]

    def work(server: int, order: list[Said]) -> list[tuple[Said, int]]:
        done: list[tuple[Said, int]] = []
        for first in range(0, len(order), 3):
            some = order[first : first + 3]
            group = [submission_of(said.source, [said], example=example) for said in some]
            results = commit(servers[server], *group)
            done += [(said, outcomes_of(it)[0]) for said, it in zip(some, results, strict=True)]
        return done

    with ThreadPoolExecutor(2) as pool:
        orders = [random.sample(everything, len(everything)) for _ in servers]
        running = [pool.submit(work, server, order) for server, order in enumerate(orders)]
        outcomes = [pair for it in running for pair in it.result(WAIT_SECONDS_MAX)]
    new = {said: outcome for said, outcome in outcomes if outcome != Outcome.DUPLICATE}
    assert Counter(said for said, _ in outcomes) == Counter([*everything, *everything])
    assert Counter(new.keys()) == Counter(everything)
    oracle = Oracle(
        counted={said.request: said for said, it in new.items() if it == Outcome.RECORDED},
        evidence={said for said, it in new.items() if it == Outcome.OBSERVED},
        reused={said for said, it in new.items() if it == Outcome.REQUEST_ID_REUSED},
    )
    of_requests = {
        (it.request, it.source, it.call) for it in {*oracle.counted.values(), *oracle.evidence}
    }
    assert len(oracle.counted) == 4
    assert len(of_requests) == 4 * len(_SOURCES), "of each source one call is of a request"
    assert oracle.reused == {
        it for it in everything if (it.request, it.source, it.call) not in of_requests
    }
    check_database(database_url, example=example, oracle=oracle)
