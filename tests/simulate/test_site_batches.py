"""The batches of a site's servers: what their bytes say is what is written down of them."""

from collections import Counter

import numpy as np
import numpy.typing as npt

from cli.simulate.site.batches import LEVELS, Prepared, message, place, prepare
from cli.simulate.site.size import MODELS, TIERS, parse_size
from cli.simulate.trace import generated_trace
from meter.planes import from_planes
from tokenworks.meter.v1.meter_service_pb2 import StreamUsageRequest
from tokenworks.meter.v1.usage_pb2 import PlaneColumn, TokenClass, UsagePlanes

SIZE = parse_size("2MW")
ACCOUNTS = tuple(f"account-{number}" for number in range(40))
BASE_MS = 1_795_000_000_123


def test_prepare__planes_say_what_is_written_down() -> None:
    """Read by the journal's reader, each batch has the tokens, account by account, of its truth."""
    prepared = _prepare(seed=1)
    assert len(prepared) == len(TIERS) * len(MODELS) * LEVELS
    for each in prepared:
        form = UsagePlanes.FromString(each.planes)
        accounts = _column(form.account_index, form)
        found: Counter[tuple[str, str]] = Counter()
        for token in form.tokens:
            word = TokenClass.Name(token.token_class).removeprefix("TOKEN_CLASS_").lower()
            for account, count in zip(accounts, _column(token.counts, form), strict=True):
                found[form.accounts[account], word] += int(count)
        written = {
            (account, word): count
            for account, classes in each.tokens.items()
            for word, count in classes.items()
        }
        assert +found == written
        assert form.event_count == each.event_count
        assert [(it.model, it.tier, it.pool) for it in form.services] == [
            (each.model, each.tier, f"site-{each.tier}")
        ]
        ends = _column(form.end_offset_ms, form)
        assert 0 <= ends.min() <= ends.max() < 1_000


def test_prepare__by_seed() -> None:
    """The seed decides what is in the batches."""
    first, same, other = ([each.planes for each in _prepare(seed=seed)] for seed in (7, 7, 8))
    assert first == same
    assert first != other


def test_place__finds_tier_and_model() -> None:
    """Batches are found by tier, model and level; a higher level has more requests."""
    prepared = _prepare(seed=1)
    for tier_index, tier in enumerate(TIERS):
        for model_index, model in enumerate(MODELS):
            numbers = [place(tier_index, model_index, level) for level in range(LEVELS)]
            batches = [prepared[number] for number in numbers]
            assert {(it.tier, it.model) for it in batches} == {(tier.name, model)}
            counts = [it.event_count for it in batches]
            assert counts == sorted(counts)


def test_message__is_that_of_the_contract() -> None:
    """A prepared batch goes out under its number and time, and again with the same bytes."""
    planes = _prepare(seed=1)[0].planes
    raw = message(300, planes, base_ms=BASE_MS)
    assert raw == message(300, planes, base_ms=BASE_MS)
    batch = StreamUsageRequest.FromString(raw).batch
    assert (batch.sequence, batch.WhichOneof("events")) == (300, "planes")
    assert batch.planes.base_time.ToMilliseconds() == BASE_MS
    batch.planes.ClearField("base_time")
    assert batch.planes == UsagePlanes.FromString(planes)


def _prepare(*, seed: int) -> list[Prepared]:
    arrivals = generated_trace(request_count=500, seed=seed)
    return prepare(SIZE, arrivals=arrivals, accounts=ACCOUNTS, seed=seed)


def _column(column: PlaneColumn, form: UsagePlanes) -> npt.NDArray[np.int64]:
    return from_planes(
        column.planes,
        half_bytes=column.half_bytes,
        base=column.base,
        count=form.event_count,
    ).astype(np.int64)
