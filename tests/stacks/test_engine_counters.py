"""llama.cpp's own counters, on the page of its own server, beside what was metered of it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from meter.engines.page import read_page
from tests.acceptance.counted import wait_until
from tests.client.asgi_server import serving
from tests.postgres import Cluster
from tests.running_meter import RunningMeter, running_meter_on
from tests.stacks.drifting import Quarters, settings_before
from tests.stacks.gguf import write_gguf
from tests.stacks.test_llama_cpp import LlamaServer, ask
from tests.wire.session import Session
from tokenworks.client import Meter
from tokenworks.client.asgi import UsageMiddleware

pytestmark = pytest.mark.stacks
POOL: Final = "cpu"
_LONG: Final = "once upon a time " * 20


@pytest.fixture
def engine(tmp_path: Path) -> Any:  # noqa: ANN401 - it has no types
    """The engine with a model in it, whose server has been told `--metrics`."""
    xllamacpp = pytest.importorskip("xllamacpp", reason="xllamacpp is not installed")
    write_gguf(tmp_path / "tiny.gguf")
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(tmp_path / "tiny.gguf")
    parameters.model_alias = {"tiny"}
    parameters.n_ctx, parameters.n_parallel, parameters.cpuparams.n_threads = 2048, 1, 1
    parameters.warmup, parameters.verbosity = False, -1
    parameters.endpoint_metrics, parameters.port = True, 0
    return xllamacpp.Server(parameters)


@pytest.fixture
def meter(
    engine: Any,  # noqa: ANN401 - it has no types
    cluster: Cluster,
    tmp_path: Path,
) -> Iterator[RunningMeter]:
    """A meter that reads the engine's page."""
    with ExitStack() as stack:
        url = stack.enter_context(cluster.database())
        settings = settings_before(f"{engine.listening_address}/metrics", pool=POOL)
        yield stack.enter_context(running_meter_on(url, folder=tmp_path, settings=settings))


def test_drift__of_a_real_engine(
    engine: Any,  # noqa: ANN401 - it has no types
    meter: RunningMeter,
) -> None:
    """Where all is reported nothing drifts; what is kept back is missing, to the token."""
    # What came from the engine's cache is on neither side.
    Session(meter).create_account("acme")
    quarters = Quarters(meter)
    with Meter(
        meter.target, api_key=meter.api_key, producer="llama", source="asgi", pool=POOL
    ) as client:
        server = LlamaServer(engine)
        with serving(UsageMiddleware(server, meter=client)) as port:
            shown = [
                ask(port, "cold", _LONG),
                ask(port, "cached", _LONG),
                ask(port, "stream", "hello", stream=True),
            ]
            made = _sum(shown)
            _wait_until_shown(engine, made)
            quarters.pass_on()
            quarters.wait_for(made, metered=made)
        with serving(server) as port:
            kept = _sum([ask(port, "kept", "a story, of which nobody is told")])
        all_made = {kind: count + kept[kind] for kind, count in made.items()}
        _wait_until_shown(engine, all_made)
        quarters.pass_on()
        quarters.wait_for(all_made, metered=made)


def _wait_until_shown(
    engine: Any,  # noqa: ANN401 - it has no types
    tokens: Mapping[str, int],
) -> None:
    """Wait until the page is as far as the engine's answers are."""

    def is_shown() -> bool:
        found = read_page(engine.handle_metrics()).counters.values()
        return {it.kind.value: it.tokens for it in found} == tokens

    wait_until(is_shown, seconds_max=60, what=f"the page shows {tokens}")


def _sum(shown: Sequence[Mapping[str, Any] | None]) -> Mapping[str, int]:
    """Return what an engine's counters gained by the usage that callers were shown."""
    told = [usage for usage in shown if usage is not None]
    cached = sum(usage["prompt_tokens_details"]["cached_tokens"] for usage in told)
    return {
        "uncached_prompt": sum(usage["prompt_tokens"] for usage in told) - cached,
        "output": sum(usage["completion_tokens"] for usage in told),
    }
