"""The flow of `tokenworks top`: one answer after another, each made into what is shown."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cli.top.counters import Report, Sample, to_report
from cli.top.endpoint import NoAnswer
from cli.top.window import Window


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """A server that does not answer; `since_ms` (since 1970) is when it last did."""

    since_ms: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What is known at one refresh, `time_ms` since 1970.

    `samples` are the answers of the window, oldest first; `report` is None while there is one.
    Under `silence` all of it is as it was.
    """

    time_ms: int
    samples: tuple[Sample, ...]
    report: Report | None
    silence: Silence | None


def watch(
    read: Callable[[], Sample],
    *,
    every_seconds: float,
    window_seconds: float,
    now_ms: Callable[[], int],
    wait: Callable[[float], None],
) -> Iterator[Frame]:
    """Return a frame for each reading, for ever; raises NoAnswer when the first one fails."""
    window = Window(read(), seconds=window_seconds)
    silence = None
    answered_ms = now_ms()
    while True:
        samples = window.samples
        yield Frame(time_ms=now_ms(), samples=samples, report=to_report(samples), silence=silence)
        wait(every_seconds)
        try:
            window.add(read())
            silence = None
            answered_ms = now_ms()
        except NoAnswer as error:
            silence = Silence(since_ms=answered_ms, reason=str(error))
