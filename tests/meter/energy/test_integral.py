"""Energy of gauges: trapezoids that add up to whole millijoules, and what is not known."""

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from meter.energy.counters import Estimate
from meter.energy.integral import PowerIntegral

GAP_MS = 60_000


def take(
    integral: PowerIntegral, time_ms: int, power_mw: int, *, name: str = "old", device: str = "a"
) -> Estimate | None:
    """Take a sample."""
    return integral.take(
        name=name, device=device, time_ms=time_ms, power_mw=power_mw, gap_ms=GAP_MS
    )


def estimate(since_ms: int, time_ms: int, energy_mj: int, *, name: str = "old") -> Estimate:
    """Return an estimate of the device."""
    return Estimate(name=name, device="a", since_ms=since_ms, time_ms=time_ms, energy_mj=energy_mj)


def test_take__trapezoids() -> None:
    """Between two samples power is taken to go straight from one to the other."""
    integral = PowerIntegral()
    assert take(integral, 0, 100_000) is None
    first = take(integral, 10_000, 300_000)
    assert first == estimate(0, 10_000, 2_000_000)
    integral.settle(first)
    assert take(integral, 15_000, 300_000) == estimate(10_000, 15_000, 1_500_000)


def test_take__what_is_not_settled_stays() -> None:
    """What could not be recorded is in the next estimate, over the whole of its time."""
    integral = PowerIntegral()
    take(integral, 0, 100_000)
    take(integral, 10_000, 100_000)
    assert take(integral, 20_000, 100_000) == estimate(0, 20_000, 2_000_000)


def test_take__samples_too_far_apart() -> None:
    """A gauge says nothing of a time in which nobody looked: there it begins anew."""
    integral = PowerIntegral()
    take(integral, 0, 100_000)
    assert take(integral, GAP_MS, 100_000) == estimate(0, GAP_MS, 6_000_000)
    assert take(integral, 2 * GAP_MS + 1, 100_000) is None
    assert take(integral, 2 * GAP_MS + 2, 100_000) == estimate(2 * GAP_MS + 1, 2 * GAP_MS + 2, 100)


def test_take__not_newer() -> None:
    """A sample that is not newer than the last one says nothing."""
    integral = PowerIntegral()
    take(integral, 10, 100_000)
    assert take(integral, 10, 900_000) is None
    assert take(integral, 9, 900_000) is None
    assert take(integral, 20, 100_000) == estimate(10, 20, 1_000)


def test_take__device_of_another_pool() -> None:
    """A device that went over to another pool begins anew there."""
    integral = PowerIntegral()
    take(integral, 0, 100_000)
    assert take(integral, 10, 100_000, name="new") is None
    assert take(integral, 20, 100_000, name="new") == estimate(10, 20, 1_000, name="new")


def test_forget__begins_anew() -> None:
    """What is forgotten is not counted on; each device for itself."""
    integral = PowerIntegral()
    for device in ("a", "b"):
        take(integral, 0, 100_000, device=device)
    integral.forget("a")
    assert take(integral, 10, 100_000) is None
    integral.forget_before(1)
    assert take(integral, 20, 100_000) is not None
    assert take(integral, 20, 100_000, device="b") is None


@settings(max_examples=300)
@given(
    st.lists(st.tuples(st.integers(1, GAP_MS), st.integers(0, 10**7)), min_size=1, max_size=20),
    st.lists(st.booleans(), min_size=20, max_size=20),
)
def test_take__whole_millijoules_add_up(
    samples: list[tuple[int, int]], settled: list[bool]
) -> None:
    """However often it is settled, the sum is the integral, and less than a millijoule below it."""
    integral = PowerIntegral()
    time_ms, power_mw, exact, recorded, pending = 0, 0, Fraction(0), 0, 0
    take(integral, 0, 0)
    for (passed_ms, next_mw), is_settled in zip(samples, settled, strict=False):
        time_ms += passed_ms
        exact += Fraction((power_mw + next_mw) * passed_ms, 2_000)
        power_mw = next_mw
        found = take(integral, time_ms, power_mw)
        assert found is not None
        pending = found.energy_mj
        if is_settled:
            integral.settle(found)
            recorded, pending = recorded + pending, 0
    assert 0 <= exact - (recorded + pending) < 1
