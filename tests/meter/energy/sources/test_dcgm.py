"""Pages of exporters: both names, boards that repeat themselves, and what makes no sense."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meter.domain.limits import COUNTER_MJ_MAX, ENERGY_PAGE_DEVICES_MAX
from meter.energy.sources.dcgm import Page, read_page
from meter.energy.sources.port import Sample
from tests.exporter import NEW_GAUGE, NEW_NAME, OLD_GAUGE, OLD_NAME, page_of, sample


def page(**counters_mj: int) -> Page:
    """Return a page of these boards, of which all made sense."""
    return Page(counters_mj=counters_mj, powers_mw={})


def test_read_page__as_exporters_write_it() -> None:
    """The counters are found among other metrics, help and types."""
    boards = {"GPU-1": 257858316, "GPU-2": 5551899580}
    assert read_page(page_of(boards, watts={"GPU-1": 412.105})) == Page(
        counters_mj=boards, powers_mw={"GPU-1": 412_105}
    )


@pytest.mark.parametrize(
    ("name", "value", "counter_mj"),
    [
        # Up to 4.8 in millijoules, from 4.9 on in joules: what it is in is said by the name.
        (OLD_NAME, "167895412", 167_895_412),
        (OLD_NAME, "1.67895412e+08", 167_895_412),
        (OLD_NAME, "0", 0),
        (OLD_NAME, "9007199254740992", 2**53),
        (OLD_NAME, "0.9", 0),
        (NEW_NAME, "167895", 167_895_000),
        (NEW_NAME, "12345.678", 12_345_678),
        # As binary fractions these would be a millijoule less.
        (NEW_NAME, "0.3", 300),
        (NEW_NAME, "4.35", 4_350),
        (NEW_NAME, "1.2345e+07", 12_345_000_000),
        (NEW_NAME, "0.0009", 0),
    ],
)
def test_read_page__to_millijoules(name: str, value: str, counter_mj: int) -> None:
    """Each name has its unit; decimal places are kept, what is less than a millijoule is not."""
    assert read_page(sample("a", value, name=name)) == page(a=counter_mj)


@pytest.mark.parametrize("name", [OLD_GAUGE, NEW_GAUGE])
@pytest.mark.parametrize(
    ("value", "power_mw"),
    [("412.105000", 412_105), ("0", 0), ("0.0019", 1), ("7e2", 700_000), ("412105", 412_105_000)],
)
def test_read_page__to_milliwatts(name: str, value: str, power_mw: int) -> None:
    """Gauges are in watts under both names."""
    found = read_page(sample("a", value, name=name))
    assert found == Page(counters_mj={}, powers_mw={"a": power_mw})


@pytest.mark.parametrize("value", ["NaN", "-1", "140737488355328.0e9", "many"])
def test_read_page__gauge_without_sense(value: str) -> None:
    """A gauge that makes no sense is as good as none: the counter is what counts."""
    text = f"{sample('a', value, name=OLD_GAUGE)}\n{sample('a', 7)}"
    assert read_page(text) == page(a=7)


def test_samples__of_what_is_there() -> None:
    """Each board is one sample, with what it has; in parts, with the highest of each."""
    lines = [
        *(sample("a", value, part=part) for value, part in [(9, "1"), (7, "2")]),
        *(sample("a", value, name=OLD_GAUGE, part=part) for value, part in [(3, "1"), (4, "2")]),
        sample("b", 8),
        sample("c", 5, name=NEW_GAUGE),
    ]
    assert read_page("\n".join(lines)).samples() == [
        Sample(device="a", counter_mj=9, power_mw=4_000),
        Sample(device="b", counter_mj=8),
        Sample(device="c", power_mw=5_000),
    ]


@pytest.mark.parametrize(
    "lines",
    [
        # A board that is divided (MIG) shows its counter for each part, each a moment apart.
        [sample("a", value, part=part) for value, part in [(7, "3"), (9, "4"), (8, "5")]],
        [sample("a", 9), sample("a", 9)],
        # In mixed fleets, and while an exporter is changed, a board may have both names.
        [sample("a", 9), sample("a", "0.008", name=NEW_NAME)],
        [sample("a", "0.009", name=NEW_NAME), sample("a", 8)],
        [sample("a", 9).replace("UUID=", "uuid=")],
        # The host's name is written in two ways, and says nothing.
        [sample("a", 8), sample("a", 9).replace('Hostname="node-1"', 'hostname="node-2"')],
        [sample("a", 9) + " 1700000000000"],
    ],
)
def test_read_page__a_board_counts_once(lines: list[str]) -> None:
    """However often, by whatever name and with whatever labels a board is there, it is one."""
    assert read_page("\n".join(lines)) == page(a=9)


@pytest.mark.parametrize(
    "line",
    [
        *(
            sample("a", value)
            for value in ("NaN", "+Inf", "-Inf", "-1", "many", "", "1e400", "0x10", "1_000")
        ),
        # What DCGM writes for "not supported", and a number that no column holds.
        sample("a", 9223372036854775794),
        sample("a", COUNTER_MJ_MAX + 1),
        sample("a", "5e15", name=NEW_NAME),
        sample("", 5),
        sample("a" * 65, 5),
        sample("a\tb", 5),
        sample("a", 5)[:40],
        sample("a", 5).replace("}", ""),
        sample("a", 5).replace("UUID=", "serial="),
        f"{OLD_NAME} 5",
        OLD_NAME,
        # Torn where the parser looks further.
        sample("a", 5).replace('device="', ' ="').replace("} ", "} 1}"),
        sample("a", 5).replace("{", "{" + ",".join(f'l{place}=""' for place in range(10**5)) + ","),
    ],
)
def test_read_page__one_line_without_sense(line: str) -> None:
    """A line that makes no sense is told of, and takes no other with it."""
    assert read_page(f"{sample('b', 7)}\n{line}\n{sample('c', 8)}\n") == Page(
        counters_mj={"b": 7, "c": 8}, powers_mw={}, unreadable_count=1
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<html><body>502 Bad Gateway</body></html>",
        f"# HELP {OLD_NAME} Total energy consumption since boot (in mJ).",
        f"{OLD_NAME}_OF_A_RACK{{UUID='a'}} 5",
        sample("a", 5, name=f"{OLD_GAUGE}_INSTANT"),
        f"{OLD_GAUGE} 5",
        "\0\0\0",
        "{" * 1000,
    ],
)
def test_read_page__without_counters(text: str) -> None:
    """A page without our counters has none, whatever else it is."""
    assert read_page(text) == page()


def test_read_page__of_too_many_boards() -> None:
    """One exporter has so many boards at most; the others are told of."""
    boards = {f"GPU-{number}": number for number in range(ENERGY_PAGE_DEVICES_MAX + 3)}
    found = read_page(page_of(boards))
    assert len(found.counters_mj) == ENERGY_PAGE_DEVICES_MAX
    assert found.unreadable_count == 3


@given(
    st.lists(
        st.one_of(
            st.text(max_size=40),
            st.text(max_size=40).map(lambda tail: OLD_NAME + tail),
            st.text(max_size=40).map(lambda tail: f'{OLD_NAME}{{UUID="a"{tail}'),
            st.text(max_size=40).map(lambda tail: f'{NEW_NAME}{{UUID="a"}} {tail}'),
            st.text(max_size=20).map(lambda value: sample("a", value)),
            st.text(max_size=20).map(lambda value: sample("a", value, name=NEW_GAUGE)),
            st.text(max_size=20).map(lambda uuid: sample(uuid, 5)),
        ),
        max_size=5,
    )
)
@example([f'{OLD_NAME}{{UUID="a"}} {"9" * 5000}'])
def test_read_page__garbage_is_never_a_fault(lines: list[str]) -> None:
    """Whatever a page says, reading it ends with counters in their range, or without."""
    found = read_page("\n".join(lines))
    values = [*found.counters_mj.values(), *found.powers_mw.values()]
    assert all(0 <= value <= COUNTER_MJ_MAX for value in values)
