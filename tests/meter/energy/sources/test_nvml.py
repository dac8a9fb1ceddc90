"""This machine's own GPUs, played from what a real H100 showed, and broken in the known ways."""

import threading
from collections.abc import Callable
from itertools import pairwise

import pytest

from meter.energy.sources.nvml import NvmlReader, load_library
from meter.energy.sources.port import Found, Sample, SourceFailed, SourceFailure
from tests.nvml import UUID, Board, FakeNvml, NVMLError, played

OTHER = "GPU-5ad1c0de-0000-4000-8000-000000000002"
SCRAPE_ROWS = 150


def reader_of(library: FakeNvml, *, seconds_max: float = 30.0) -> NvmlReader:
    """Return a reader of these boards."""
    return NvmlReader(load=lambda: library, seconds_max=seconds_max)


def failure_of(read: Callable[[], Found]) -> SourceFailed:
    """Return how a read fails."""
    with pytest.raises(SourceFailed) as caught:
        read()
    return caught.value


def test_read__gives_counter_and_gauge_of_each_board() -> None:
    """Every board is there with its own name, in mJ and mW as the library has them."""
    library = FakeNvml(
        Board(counter_mj=2_283_756, power_mw=72_068), Board(OTHER, 2**53 + 1, 700_000)
    )
    found = reader_of(library).read()
    assert found == Found(
        samples=[
            Sample(device=UUID, counter_mj=2_283_756, power_mw=72_068),
            Sample(device=OTHER, counter_mj=2**53 + 1, power_mw=700_000),
        ]
    )


def test_read__follows_what_an_h100_showed() -> None:
    """Read every 15 s, the recorded counter gives all of its energy, and never goes back."""
    rows = played()[::SCRAPE_ROWS]
    library = FakeNvml(Board())
    reader = reader_of(library)
    counters = []
    for row in rows:
        library.boards[0].counter_mj = row.counter_mj
        (sample,) = reader.read().samples
        assert sample.counter_mj is not None
        counters.append(sample.counter_mj)
    assert sum(later - earlier for earlier, later in pairwise(counters)) == (
        rows[-1].counter_mj - rows[0].counter_mj
    )
    assert counters == sorted(counters)
    assert library.init_count == 1


def test_read__without_the_library() -> None:
    """Without the extra the source says so, and why is the cause."""

    def load() -> FakeNvml:
        raise ModuleNotFoundError("No module named 'pynvml'", name="pynvml")

    failed = failure_of(NvmlReader(load=load).read)
    assert failed.failure is SourceFailure.NO_LIBRARY
    assert isinstance(failed.__cause__, ImportError)


@pytest.mark.parametrize("error", ["LIBRARY_NOT_FOUND", "DRIVER_NOT_LOADED"])
def test_read__without_a_driver(error: str) -> None:
    """Without a driver the source says so, and is read again when it has come."""
    library = FakeNvml(Board())
    library.init_error = error
    reader = reader_of(library)
    failed = failure_of(reader.read)
    assert failed.failure is SourceFailure.NO_LIBRARY
    assert isinstance(failed.__cause__, NVMLError)
    library.init_error = ""
    assert len(reader.read().samples) == 1


def test_read__of_a_machine_without_boards() -> None:
    """A driver without a board has no counters."""
    assert failure_of(reader_of(FakeNvml()).read).failure is SourceFailure.NO_COUNTERS


def test_read__goes_on_beside_a_board_that_is_lost() -> None:
    """A board that fell off its bus is told, the others are read, and it may come back."""
    library = FakeNvml(Board(error="GPU_IS_LOST"), Board(OTHER))
    reader = reader_of(library)
    found = reader.read()
    assert [sample.device for sample in found.samples] == [OTHER]
    assert found.failure is SourceFailure.DEVICE_LOST
    library.boards[0].error = ""
    assert reader.read() == Found(
        samples=[Sample(device=device, counter_mj=0, power_mw=75_000) for device in (UUID, OTHER)]
    )
    assert (library.init_count, library.open_count) == (2, 1)


def test_read__of_a_machine_whose_boards_are_all_lost() -> None:
    """When no board answers, that is why there is nothing."""
    library = FakeNvml(Board(error="GPU_IS_LOST"), Board(OTHER, error="UNKNOWN"))
    failed = failure_of(reader_of(library).read)
    assert failed.failure is SourceFailure.DEVICE_LOST
    assert library.open_count == 0


def test_read__of_a_board_without_a_counter() -> None:
    """A board that cannot count has its gauge; one that has neither is told."""
    library = FakeNvml(Board(counter_mj=None), Board(OTHER, None, None))
    assert reader_of(library).read() == Found(
        samples=[Sample(device=UUID, power_mw=75_000)], failure=SourceFailure.NO_COUNTERS
    )


def test_read__of_a_board_without_a_gauge() -> None:
    """A board whose power is not known has its counter."""
    (sample,) = reader_of(FakeNvml(Board(counter_mj=7, power_mw=None))).read().samples
    assert sample == Sample(device=UUID, counter_mj=7)


def test_read__of_a_divided_board() -> None:
    """A board in MIG mode is one device with one counter, however many parts it has."""
    library = FakeNvml(Board(counter_mj=500, parts=("MIG-1", "MIG-2", "MIG-3")))
    assert reader_of(library).read().samples == [
        Sample(device=UUID, counter_mj=500, power_mw=75_000)
    ]


@pytest.mark.parametrize("name", ["", "GPU-\n", "G" * 65])
def test_read__of_a_board_without_a_name(name: str) -> None:
    """A name that no report could carry is told, and harms no other board."""
    found = reader_of(FakeNvml(Board(uuid=name), Board(OTHER))).read()
    assert [sample.device for sample in found.samples] == [OTHER]
    assert found.failure is SourceFailure.UNREADABLE


def test_read__of_a_counter_beyond_any() -> None:
    """A counter that no store can keep is none; the gauge stays."""
    (sample,) = reader_of(FakeNvml(Board(counter_mj=2**62 + 1))).read().samples
    assert sample == Sample(device=UUID, power_mw=75_000)


def test_read__ends_when_the_driver_hangs() -> None:
    """A read that hangs is left behind, none is begun beside it, and the next one works."""
    released, begun = threading.Event(), []

    def hang() -> None:
        begun.append(threading.current_thread())
        released.wait()

    library = FakeNvml(Board(before=hang))
    reader = reader_of(library, seconds_max=1.0)
    assert failure_of(reader.read).failure is SourceFailure.UNREACHABLE
    assert failure_of(reader.read).failure is SourceFailure.UNREACHABLE
    assert len(begun) == 1
    reader.close()
    assert library.open_count == 1
    released.set()
    begun[0].join()
    library.boards[0].before = lambda: None
    assert len(reader.read().samples) == 1


def test_close__lets_go_of_the_driver() -> None:
    """Closed, NVML is ended once, and closing again is no error."""
    library = FakeNvml(Board())
    reader = reader_of(library)
    reader.read()
    reader.close()
    reader.close()
    assert (library.init_count, library.open_count) == (1, 0)


def test_library__has_what_is_asked_of_it() -> None:
    """What the tests' library has, the real one has."""
    real = load_library()
    fake = FakeNvml()
    names = [name for name in dir(fake) if name.lower().startswith("nvml")]
    assert len(names) == 15
    assert not [name for name in (*names, "NVMLError") if not hasattr(real, name)]


def test_read__by_the_real_library() -> None:
    """The real library finds boards, or says that it finds no driver."""
    reader = NvmlReader()
    try:
        assert reader.read().samples
    except SourceFailed as failed:
        if failed.failure is not SourceFailure.NO_LIBRARY:
            raise
    reader.close()
