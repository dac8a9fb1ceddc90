"""Random stories: a world lived for some months, with all that comes late, back or otherwise.

A story is data: what is agreed on at the begin, and steps. What a step is about that is not there
before (a document, a line) is drawn by a number, which whoever lives it takes modulo what there is.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final, NamedTuple

from tests.acceptance.oracle_accounts import Tree
from tests.acceptance.oracle_bills import EXPONENTS, Event, to_event
from tests.acceptance.worlds import World, random_world

# A contract may have begun two months before the world's month, by whatever clock.
MONTHS_BEFORE: Final = 3
# The world's month, and two more.
MONTHS_AFTER: Final = 3
YEAR_MIN: Final = 1980
_DAY_MS: Final = 86_400_000
# What a step is, but for reports and closes, and how often it is drawn.
_TURNS: Final = (
    *("late", "late", "late", "take back", "take back", "replace", "release", "credit", "credit"),
    *("void", "correct", "write off", "book", "contract"),
)


class Step(NamedTuple):
    """What happens: its kind, the events or texts that it is about, and numbers to choose by."""

    kind: str
    events: tuple[Event, ...] = ()
    texts: tuple[str, ...] = ()
    month: str = ""
    numbers: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """The files that hold from the begin, the accounts, and what happens then."""

    seed: int
    months: tuple[str, ...]
    books: tuple[str, ...]
    contracts: tuple[str, ...]
    tree: Tree
    steps: tuple[Step, ...]


def random_story(seed: int) -> Story:
    """Draw the story of a seed."""
    world = random_world(seed)
    random = Random(f"story {seed}")
    months = tuple(_months(world.month))
    late_book = _late_book(world.books, random)
    events = [*map(to_event, world.events), *_later_events(world, random)]
    random.shuffle(events)
    contracts = tuple(_with_extras(it, random) for it in world.contracts)
    changes = {"book": [late_book] if late_book else [], "contract": [_otherwise(contracts[0])]}
    return Story(
        seed=seed,
        months=months,
        books=tuple(it for it in world.books if it != late_book),
        contracts=contracts,
        tree=world.tree,
        steps=tuple(_steps(events, months=months, changes=changes, random=random)),
    )


def _months(first: str) -> Iterator[str]:
    year, number = int(first[:4]), int(first[5:])
    for place in range(-MONTHS_BEFORE, MONTHS_AFTER):
        years, month = divmod(number - 1 + place, 12)
        if year + years >= YEAR_MIN:
            yield f"{year + years:04}-{month + 1:02}"


def _late_book(books: Sequence[str], random: Random) -> str | None:
    """Draw a version that is agreed on late: any but its book's first."""
    names = [_value_of(text, "book") for text in books]
    later = [
        text
        for place, text in enumerate(books)
        if any(names[before] == names[place] for before in range(place))
    ]
    return random.choice(later) if later and random.random() < 0.5 else None


def _later_events(world: World, random: Random) -> Iterator[Event]:
    """Yield events of the months after the world's, like those in it."""
    drawn = random.choices(world.events, k=random.randint(5, 25))
    for number, truth in enumerate(drawn):
        shift_ms = random.randint(27, 62) * _DAY_MS + random.choice((0, 0, 1, -1, 900_000))
        later: Mapping[str, Any] = {
            **truth,
            "end_time_ms": truth["end_time_ms"] + shift_ms,
            "request_id": f"{truth['request_id']}-later-{number}",
        }
        yield to_event(later)


def _with_extras(contract: str, random: Random) -> str:
    """Write what a contract may say beside prices into its text."""
    exponent = EXPONENTS.get(_value_of(contract, "currency"), 2)
    unit = "0." + "0" * (exponent - 1) + "1" if exponent else "1"
    document = ['[document]\nkind = "invoice"']
    document += ['group_by = "account"'] if random.random() < 0.3 else []
    document += (
        [f'minimum = "{random.choice((unit, "5", "1000"))}"'] if random.random() < 0.3 else []
    )
    document += ["zero = true"] if random.random() < 0.2 else []
    tables = ['[closing]\nhold_jump = "0"']
    text = contract.replace('[document]\nkind = "invoice"', "\n".join(document))
    if random.random() < 0.4:
        ids = 'tax_id = "DE1"\n'
        text = text.replace('name = "Nimbus GmbH"\n', f'name = "Nimbus GmbH"\n{ids}')
        text = text.replace('name = "ACME SA"\n', f'name = "ACME SA"\n{ids}')
        category, rate = random.choice((("S", "19"), ("S", "7.7"), ("AE", ""), ("Z", "")))
        tables.append(f'[tax]\ncategory = "{category}"')
        tables += [f'rate = "{rate}"'] if rate else []
    for number in range(random.choice((0, 0, 0, 1, 2))):
        price = random.choice(("500", "0.5", "2.345"))
        lines = [f'[[charges]]\nid = "charge-{number}"\ntext = "Support"\nunit = "month"']
        lines += [f'quantity = "{random.choice(("1", "2.5", "744"))}"', f'price = "{price}"']
        tables.append("\n".join([*lines, 'every = "month"']))
    return "\n".join([text, *tables])


def _otherwise(contract: str) -> str:
    """Write a contract that sells by the other name of a model."""
    served, requested = 'price_by = "served"', 'price_by = "requested"'
    if served in contract:
        return contract.replace(served, requested)
    if requested in contract:
        return contract.replace(requested, served)
    return contract.replace("\nseller = ", f"\n{served}\nseller = ")


def _steps(
    events: Sequence[Event],
    *,
    months: Sequence[str],
    changes: Mapping[str, list[str]],
    random: Random,
) -> Iterator[Step]:
    """Yield what happens: most is reported before its month is closed, and some after."""
    held_back = [it for it in events if random.random() < 0.25]
    # An event that was set aside counts from its release, whenever it was reported.
    aside = [it for it in events if it not in held_back and random.random() < 0.1]
    first = [it for it in events if it not in held_back and it not in aside]
    for part in range(2):
        yield Step("report", events=tuple(first[part::2]))
    for month in months[:-MONTHS_AFTER]:
        yield Step("close", month=month)
    for month in months[-MONTHS_AFTER:]:
        yield Step("close", month=month)
        for _ in range(random.randint(0, 4)):
            waiting = {"late": held_back, "release": aside}
            yield from _turn(month, waiting=waiting, changes=changes, random=random)
        if random.random() < 0.3:
            yield Step("close", month=month)
    if changes["book"]:
        yield Step("book", texts=tuple(changes["book"]), numbers=(0,))
    for month in months:
        yield Step("close", month=month)


def _turn(
    month: str,
    *,
    waiting: Mapping[str, list[Event]],
    changes: Mapping[str, list[str]],
    random: Random,
) -> Iterator[Step]:
    """Yield what happens after a close, if anything; what it takes waits no more."""
    kind = random.choice(_TURNS)
    if kind in waiting:
        count = min(len(waiting[kind]), random.randint(1, 6))
        taken = tuple(waiting[kind].pop() for _ in range(count))
        if taken:
            yield Step("report", events=taken)
    elif kind in changes:
        if changes[kind]:
            yield Step(kind, texts=(changes[kind].pop(),), numbers=(random.randrange(2),))
    else:
        numbers = tuple(random.randrange(2**30) for _ in range(3))
        yield Step(kind, month=month, numbers=numbers)


def _value_of(text: str, name: str) -> str:
    line = next(it for it in text.splitlines() if it.startswith(f"{name} = "))
    return line.split('"')[1]
