"""A real vLLM or SGLang on this machine's processors, whose counters a meter reads beside usage.

It reports by its spans, and those of what a caller does not sample are not made: so a request is
kept from the meter as it would be anywhere. What `tokenworks usage drift` says must agree with what
callers were told, to the token. A program and no test of `make test-stacks`, as `tests.stacks.vllm`
and `tests.stacks.engines` are, which say how engines are installed:

    .venv/bin/python -m tests.stacks.counters vllm V/bin/vllm
    .venv/bin/python -m tests.stacks.counters sglang PATH/TO/ENVIRONMENT/bin/python

The page as it stood at the end stays in `build/ENGINE-page.txt`.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from meter.energy.sources.page import fetch_page
from meter.engines.page import read_page
from tests.acceptance.counted import wait_until
from tests.postgres import running_cluster
from tests.running_meter import RunningMeter, running_meter_on
from tests.stacks.drifting import Quarters, settings_before
from tests.stacks.engines import CASES, ask, free_port, running, sglang
from tests.stacks.tiny_model import write_model
from tests.stacks.vllm import running_vllm
from tests.wire.session import Session

_POOL: Final = "cpu"
_SOURCES: Final = f'[defaults]\ntier = "high"\npool = "{_POOL}"\n'
_SHOWN_SECONDS_MAX: Final = 60
# A span for what the caller samples, and none for what it does not.
_SAMPLER: Final = "parentbased_always_on"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Requests that are made; their prompts are counted once, and so many times more."""

    name: str
    cases: Sequence[str]
    prompts_more: int = 0
    is_sampled: bool = True


def _steps(engine: str) -> Sequence[Step]:
    all_reported = [
        "chat", "chat-stream", "warm", "cached", "two-prompts", "responses", "messages",
    ]  # fmt: skip
    return [
        Step(name="all reported", cases=all_reported),
        # SGLang reads the prompt once more, before the answers.
        Step(
            name="three answers",
            cases=["chat-n-3"],
            prompts_more=3 if engine == "sglang" else 2,
        ),
        Step(name="one kept", cases=["chat"], is_sampled=False),
    ]


def main() -> int:
    """Run all steps; exit 0 where each drift was what it has to be."""
    parser = argparse.ArgumentParser(prog="python -m tests.stacks.counters")
    parser.add_argument("engine", choices=["vllm", "sglang"])
    parser.add_argument("program", type=Path, help="vLLM's, or SGLang's interpreter")
    given = parser.parse_args()
    port = free_port()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        page = f"http://127.0.0.1:{port}/metrics"
        meter = stack.enter_context(_running_meter(Path(name), page=page))
        Session(meter).create_account("acme")
        _start(given.engine, given.program, meter=meter, port=port, folder=Path(name), stack=stack)
        faults = list(_run(meter, steps=_steps(given.engine), port=port, page=page))
        Path(f"build/{given.engine}-page.txt").write_text(_fetch(page), "utf-8")
    sys.stdout.write("".join(f"{fault}\n" for fault in faults) + f"{len(faults)} differences\n")
    return 1 if faults else 0


def _run(meter: RunningMeter, *, steps: Sequence[Step], port: int, page: str) -> Iterator[str]:
    quarters = Quarters(meter)
    engines, metered = Counter[str](), Counter[str]()
    for step in steps:
        told = Counter[str]()
        for each in step.cases:
            request_id = f"{each}-{step.name}".replace(" ", "-")
            counts = ask(port, request_id, CASES[each], is_sampled=step.is_sampled)
            told.update(prompt=counts["prompt"], output=counts["generated"])
        engines.update(told)
        engines["prompt"] += told["prompt"] * step.prompts_more
        metered.update(told if step.is_sampled else {})
        try:
            wait_until(
                lambda: _tokens(page) == engines,
                seconds_max=_SHOWN_SECONDS_MAX,
                what=f"the page shows {dict(engines)}",
            )
        except AssertionError as error:
            yield f"{step.name}: {error}: {dict(_tokens(page))}"
        quarters.pass_on()
        try:
            quarters.wait_for(engines, metered=metered)
        except AssertionError as error:
            yield f"{step.name}: {error}"
        sys.stdout.write(f"{step.name:14} told {dict(told)}, drift {quarters.drifts()}\n")


def _tokens(page: str) -> Mapping[str, int]:
    sums = Counter[str]()
    for counter in read_page(_fetch(page)).counters.values():
        sums[counter.kind.value] += counter.tokens
    return sums


def _fetch(page: str) -> str:
    return fetch_page(page, seconds_max=30, monotonic_seconds=time.monotonic)


def _start(
    engine: str, program: Path, *, meter: RunningMeter, port: int, folder: Path, stack: ExitStack
) -> None:
    if engine == "vllm":
        stack.enter_context(
            running_vllm(program, meter=meter, folder=folder, port=port, sampler=_SAMPLER)
        )
        return
    write_model(folder / "tiny")
    made = sglang(str(program), meter=meter, folder=folder, port=port, sampler=_SAMPLER)
    stack.enter_context(running(made, folder=folder, port=port))


@contextmanager
def _running_meter(folder: Path, *, page: str) -> Iterator[RunningMeter]:
    sources = folder / "sources.toml"
    sources.write_text(_SOURCES, "utf-8")
    with running_cluster(bin_directory=None) as cluster:
        cluster.migrate_template()
        settings = {
            "otlp": "true",
            "sources_file": str(sources),
            **settings_before(page, pool=_POOL),
        }
        with (
            cluster.database() as url,
            running_meter_on(url, folder=folder, settings=settings) as meter,
        ):
            yield meter


if __name__ == "__main__":
    sys.exit(main())
