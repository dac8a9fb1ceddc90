"""Spans of work for a GPU, each with a mix of its own, and what each used."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from benchmarks.gpu.board import Board, Edge
from benchmarks.gpu.decoder import Decoder

# How many decoded tokens may be under way before the clock is looked at.
_STEPS_AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """What is asked of the model in one span: bursts of waves, each a batch of equal requests.

    `batch` 0 is a span in which nothing is asked. `prompt` tokens are computed for each request
    behind `cached` tokens whose keys and values are there; `output` tokens are generated.
    """

    kind: str
    batch: int = 0
    prompt: int = 0
    cached: int = 0
    output: int = 0
    waves: int = 1
    pause_seconds: float = 0.0

    @property
    def length(self) -> int:
        """The tokens that one request comes to, at most."""
        return self.cached + self.prompt + self.output


@dataclass(slots=True, kw_only=True)
class Work:
    """What was done in a span, so far."""

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    requests: int = 0
    busy_seconds: float = 0.0
    prefill_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A mix, what was done, and the counter's steps at which the span began and ended."""

    mix: Mix
    work: Work
    begun: Edge
    ended: Edge

    def row(self) -> dict[str, Any]:
        """Return the window as a row; times in unix milliseconds, energy in millijoules."""
        work = asdict(self.work)
        work["busy_seconds"] = round(self.work.busy_seconds, 4)
        work["prefill_seconds"] = round(self.work.prefill_seconds, 4)
        return {
            **asdict(self.mix),
            "start_ms": self.begun.time_us / 1000,
            "end_ms": self.ended.time_us / 1000,
            "energy_mj": self.ended.counter_mj - self.begun.counter_mj,
            **work,
        }


def run_window(
    mix: Mix,
    *,
    board: Board,
    model: Decoder | None,
    seconds: float,
    tell: Callable[[Mix, int], None] = lambda _mix, _output: None,
) -> Window:
    """Do what a mix asks for `seconds`, from a step of the counter to the first step after.

    `tell` hears of each wave how many tokens each of its requests was given.
    """
    work = Work()
    begun = board.edge()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if model is None or mix.batch == 0:
            time.sleep(max(0.0, until - time.monotonic()))
            break
        for _ in range(mix.waves):
            output = _wave(mix, model=model, work=work, until=until)
            if output:
                tell(mix, output)
        time.sleep(max(0.0, min(mix.pause_seconds, until - time.monotonic())))
    return Window(mix=mix, work=work, begun=begun, ended=board.edge())


def _wave(mix: Mix, *, model: Decoder, work: Work, until: float) -> int:
    """Serve one batch and return its tokens a request; what is not there by `until` is left."""
    begun = time.monotonic()
    if begun >= until:
        return 0
    room = model.room(mix.batch, length=mix.length)
    tokens = model.prefill(model.prompt(mix.batch, length=mix.prompt), room=room, start=mix.cached)
    model.wait()
    work.prefill_seconds += time.monotonic() - begun
    work.requests += mix.batch
    work.input_tokens += mix.batch * mix.prompt
    work.cached_tokens += mix.batch * mix.cached
    first = mix.cached + mix.prompt
    generated = 1
    for step in range(1, mix.output):
        tokens = model.decode(tokens, room=room, start=first + generated - 1)
        generated += 1
        if step % _STEPS_AT_ONCE == 0:
            model.wait()
            if time.monotonic() >= until:
                break
    model.wait()
    work.output_tokens += mix.batch * generated
    work.busy_seconds += time.monotonic() - begun
    return generated


def _mixes(kind: str, *rows: tuple[int, int, int, int], pause: float = 0.0) -> list[Mix]:
    return [
        Mix(
            kind=kind, batch=batch, prompt=prompt, cached=cached, output=output, pause_seconds=pause
        )
        for batch, prompt, cached, output in rows
    ]


# Batch, prompt, cached, output. The order is mixed, so that a warming card is no trend.
MIXES: Final[Sequence[Mix]] = (
    *_mixes(
        "decode",
        *((batch, 128, 0, 512) for batch in (1, 2, 4, 8, 16, 32, 64, 128, 256)),
    ),
    *_mixes(
        "prefill",
        (64, 256, 0, 1),
        (16, 1024, 0, 1),
        (4, 4096, 0, 1),
        (2, 8192, 0, 1),
        (1, 512, 0, 1),
    ),
    *_mixes(
        "cached",
        (32, 32, 2048, 1),
        (16, 64, 8192, 1),
        (8, 512, 4096, 1),
        (32, 64, 4096, 128),
        (64, 64, 1024, 64),
        (8, 64, 8192, 256),
        (32, 256, 1024, 128),
        (16, 512, 2048, 64),
        (64, 128, 512, 128),
    ),
    *_mixes(
        "mixed",
        (32, 512, 0, 128),
        (16, 1024, 0, 256),
        (64, 256, 0, 64),
        (8, 2048, 0, 64),
        (128, 128, 0, 128),
        (4, 512, 0, 256),
        (32, 2048, 0, 32),
        (1, 2048, 0, 128),
    ),
    *_mixes("paused", (32, 512, 0, 64), (8, 512, 0, 64), (16, 256, 1024, 64), pause=1.0),
    *_mixes("paused", (64, 128, 0, 32), (1, 256, 0, 64), pause=0.5),
    Mix(kind="idle"),
    Mix(kind="idle"),
)
STEADY: Final = Mix(kind="steady", batch=64, prompt=128, output=4096)
SQUARE: Final = Mix(kind="square", batch=8, prompt=1024, output=1, waves=3, pause_seconds=1.2)
