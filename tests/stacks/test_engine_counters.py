"""llama.cpp's own counters, on the page of its own server, beside what was metered of it."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from tests.acceptance.counted import wait_until
from tests.client.asgi_server import serving
from tests.postgres import Cluster
from tests.running_meter import RunningMeter, running_meter_on
from tests.stacks.drifting import Quarters, settings_before
from tests.stacks.gguf import write_gguf
from tests.stacks.recorded import recorded_events
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
    """Where all is reported nothing drifts; what is kept from the meter is missing, to the token.

    What came from the engine's cache is on neither side.
    """
    Session(meter).create_account("acme")
    quarters = Quarters(meter)
    with Meter(
        meter.target, api_key=meter.api_key, producer="llama", source="asgi", pool=POOL
    ) as client:
        server = LlamaServer(engine)
        with serving(UsageMiddleware(server, meter=client)) as port:
            shown = {
                "cold": ask(port, "cold", _LONG),
                "cached": ask(port, "cached", _LONG),
                "stream": ask(port, "stream", "hello", stream=True),
            }
            # The end of a stream is reported after its caller has it.
            wait_until(
                lambda: recorded_events(meter.database_url).keys() == shown.keys(),
                seconds_max=60,
                what="each request is reported",
            )
            found = quarters.read()
            assert all(engines == metered for engines, metered in found.values()), found
            made = {
                "uncached_prompt": sum(_uncached(usage) for usage in shown.values()),
                "output": sum(usage["completion_tokens"] for usage in shown.values() if usage),
            }
            assert {kind: engines for kind, (engines, _) in found.items()} == made
        with serving(server) as port:
            kept = ask(port, "kept", "a story, of which nobody is told")
        found = quarters.read()
        assert kept is not None
        assert {kind: engines - metered for kind, (engines, metered) in found.items()} == {
            "uncached_prompt": _uncached(kept),
            "output": kept["completion_tokens"],
        }


def _uncached(usage: Any) -> int:  # noqa: ANN401 - as it came
    cached: int = usage["prompt_tokens_details"]["cached_tokens"]
    prompt: int = usage["prompt_tokens"]
    return prompt - cached
