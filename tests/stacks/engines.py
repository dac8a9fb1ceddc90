"""Real engines on this machine's processors, which report to a meter by OpenTelemetry.

NVIDIA's Dynamo, with the engine that it brings to try it out (`dynamo.mocker`: real front and
router, made-up tokens), and SGLang, with a model whose weights are drawn at random. They are
programs and no test of `make test-stacks`: their installations are large. Dynamo:

    pip install --no-deps ai-dynamo==1.6.1 ai-dynamo-runtime==1.6.1
    pip install aiohttp kubernetes msgspec prometheus-client pyzmq redis transformers zstandard
    .venv/bin/python -m tests.stacks.engines dynamo PATH/TO/ENVIRONMENT/bin/python

SGLang has no release for processors. Where `sgl_kernel`, `torchvision` and the like cannot be
installed, modules have to stand in for them that are imported and never called; its server,
scheduler and tracing are its own:

    pip install sglang==0.5.23 opentelemetry-exporter-otlp-proto-grpc
    .venv/bin/python -m tests.stacks.engines sglang PATH/TO/ENVIRONMENT/bin/python
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final

from tests.acceptance.counted import wait_until
from tests.postgres import running_cluster
from tests.running_meter import RunningMeter, running_meter_on
from tests.stacks.recorded import Recorded, recorded_events
from tests.stacks.tiny_model import write_model
from tests.wire.session import Session
from tokenworks.client import Finish, TokenClass

_START_SECONDS_MAX: Final = 900
_ARRIVAL_SECONDS_MAX: Final = 90
_LONG: Final = "once upon a time " * 40
_CHAT: Final = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 7}
_CHATS: Final = "/v1/chat/completions"
# What the edge says, in the words of each engine.
_SOURCES: Final = '[defaults]\ntier = "high"\n[dynamo]\naccount = "parent_session_id"\n'


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is asked; `leave_after` events the caller hangs up."""

    path: str
    body: Mapping[str, Any]
    leave_after: int = 0


CASES: Final[Mapping[str, Case]] = {
    "chat": Case(path=_CHATS, body=_CHAT),
    "chat-stream": Case(
        path=_CHATS, body={**_CHAT, "stream": True, "stream_options": {"include_usage": True}}
    ),
    "chat-n-3": Case(path=_CHATS, body={**_CHAT, "n": 3}),
    "chat-left": Case(
        path=_CHATS,
        body={**_CHAT, "stream": True, "max_tokens": 1500, "ignore_eos": True},
        leave_after=1,
    ),
    "warm": Case(path="/v1/completions", body={"prompt": _LONG, "max_tokens": 3}),
    "cached": Case(path="/v1/completions", body={"prompt": _LONG, "max_tokens": 3}),
    "two-prompts": Case(path="/v1/completions", body={"prompt": ["hello", "you"], "max_tokens": 4}),
    "responses": Case(path="/v1/responses", body={"input": "hello", "max_output_tokens": 5}),
    "messages": Case(path="/v1/messages", body=_CHAT),
}


@dataclass(slots=True, kw_only=True)
class Engine:
    """How an engine is started: programs with their arguments; `unseen` cases it tells nothing of.

    Where a group of programs serves, its port is the last argument of `ports`.
    """

    programs: Sequence[Sequence[str]]
    environment: Mapping[str, str]
    unseen: frozenset[str] = field(default_factory=frozenset)


def main() -> int:
    """Run all cases; exit 0 where each was counted once and as its caller was told."""
    parser = argparse.ArgumentParser(prog="python -m tests.stacks.engines")
    parser.add_argument("engine", choices=["dynamo", "sglang"])
    parser.add_argument("python", type=Path, help="the interpreter in the engine's environment")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, _running_meter(Path(name)) as (meter, url):
        Session(meter).create_account("acme")
        port, folder = free_port(), Path(name)
        write_model(folder / "tiny")
        make = _dynamo if wanted.engine == "dynamo" else sglang
        engine = make(str(wanted.python), meter=meter, folder=folder, port=port)
        with running(engine, folder=folder, port=port):
            told = {each: ask(port, each, CASES[each]) for each in CASES}
            seen = {each: it for each, it in told.items() if each not in engine.unseen}
            try:
                wait_until(
                    lambda: recorded_events(url).keys() >= seen.keys(),
                    seconds_max=_ARRIVAL_SECONDS_MAX,
                    what="each request is reported",
                )
            except AssertionError as error:
                sys.stdout.write(f"{error}\n")
        found = recorded_events(url)
    faults = [fault for each, it in seen.items() for fault in _check(each, it, found.pop(each, []))]
    faults += [f"{each}: nobody asked for it" for each in found]
    sys.stdout.write("".join(f"{fault}\n" for fault in faults))
    sys.stdout.write(f"{len(seen)} of {len(told)} requests reported; {len(faults)} differences\n")
    return 1 if faults else 0


def _check(name: str, told: Mapping[str, int], events: Sequence[Recorded]) -> Iterator[str]:
    sums: dict[int, int] = {}
    for event in events:
        for number, count in event.tokens.items():
            sums[number] = sums.get(number, 0) + event.sign * count
    prompt = sums.get(TokenClass.INPUT, 0) + sums.get(TokenClass.CACHE_READ, 0)
    generated = sums.get(TokenClass.OUTPUT, 0)
    sys.stdout.write(f"{name:12} {prompt:5} in, {generated:4} out, told {dict(told)}\n")
    if {event.account for event in events} != {"acme"}:
        yield f"{name}: counted for {[event.account for event in events]}"
    if CASES[name].leave_after:
        if {event.finish for event in events} != {Finish.CANCELLED} or not generated:
            yield f"{name}: {events}"
    elif (prompt, generated) != (told["prompt"], told["generated"]):
        yield f"{name}: {prompt} and {generated} instead of {dict(told)}"


def ask(port: int, name: str, case: Case, *, is_sampled: bool = False) -> Mapping[str, int]:
    """Return the counts of which the caller was told, none where it has left.

    Not sampled is what no span is made of, unless the engine's sampler says `always_on`.
    """
    connection = HTTPConnection("127.0.0.1", port, timeout=180)
    trace = name.encode().hex()[:32].ljust(32, "0")
    connection.request("POST", case.path, json.dumps({"model": "tiny", **case.body}), headers={
        "Content-Type": "application/json", "X-Request-Id": name,
        "X-Dynamo-Session-Id": f"one-{name}", "X-Dynamo-Parent-Session-Id": "acme",
        "Tracestate": f"tokenworks=acme:high:{name}",
        "Traceparent": f"00-{trace}-{trace[:15]}1-0{is_sampled:d}",
    })  # fmt: skip
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    usage: Mapping[str, Any] = {}
    if not case.body.get("stream"):
        usage = json.loads(answer.read())["usage"]
    else:
        data = (line[5:] for line in answer if line.startswith(b"data: {"))
        for place, each in enumerate(data, 1):
            usage = json.loads(each).get("usage") or usage
            if place == case.leave_after:
                break
    answer.close()
    connection.close()
    prompt = usage.get("prompt_tokens", usage.get("input_tokens", 0))
    return {
        "prompt": prompt + (usage.get("cache_read_input_tokens") or 0),
        "generated": usage.get("completion_tokens", usage.get("output_tokens", 0)),
    }


def _dynamo(python: str, *, meter: RunningMeter, folder: Path, port: int) -> Engine:
    planes = (
        "--discovery-backend", "file", "--request-plane", "tcp", "--event-plane", "zmq",
    )  # fmt: skip
    front = ("--http-host", "127.0.0.1", "--http-port", str(port), "--enable-anthropic-api")
    model = ("--model-path", str(folder / "tiny"), "--model-name", "tiny")
    return Engine(
        programs=[
            (python, "-m", "dynamo.mocker", *model, *planes),
            (python, "-m", "dynamo.frontend", *front, *planes),
        ],
        environment={
            "DYN_FILE_KV": str(folder / "kv"),
            "DYN_REQUEST_TRACE": "1",
            "DYN_REQUEST_TRACE_SINKS": "otel",
            "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": f"http://{meter.otlp_grpc}",
            "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{meter.api_key}",
        },
        # It says in its own log that it traces no request for several answers.
        unseen=frozenset({"chat-n-3"}),
    )


def sglang(
    python: str, *, meter: RunningMeter, folder: Path, port: int, sampler: str = "always_on"
) -> Engine:
    """An SGLang with the model in the folder, which shows its counters and reports by spans."""
    return Engine(
        programs=[
            (
                python, "-m", "sglang.launch_server", "--model-path", str(folder / "tiny"),
                "--served-model-name", "tiny", "--host", "127.0.0.1", "--port", str(port),
                "--device", "cpu", "--dtype", "float32", "--load-format", "dummy",
                "--attention-backend", "torch_native", "--sampling-backend", "pytorch",
                "--grammar-backend", "none", "--context-length", "2048",
                "--max-total-tokens", "8192", "--disable-overlap-schedule",
                "--skip-server-warmup", "--enable-cache-report", "--enable-metrics",
                "--enable-trace", "--otlp-traces-endpoint", meter.otlp_grpc,
            )
        ],
        environment={
            "SGLANG_USE_CPU_ENGINE": "1",
            "OTEL_TRACES_SAMPLER": sampler,
            "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{meter.api_key}",
        },
    )  # fmt: skip


@contextmanager
def _running_meter(folder: Path) -> Iterator[tuple[RunningMeter, str]]:
    sources = folder / "sources.toml"
    sources.write_text(_SOURCES, "utf-8")
    with running_cluster(bin_directory=None) as cluster:
        cluster.migrate_template()
        settings = {"otlp": "true", "sources_file": str(sources)}
        with (
            cluster.database() as url,
            running_meter_on(url, folder=folder, settings=settings) as meter,
        ):
            yield meter, url


@contextmanager
def running(engine: Engine, *, folder: Path, port: int) -> Iterator[None]:
    """The engine for the time of the block, from when it serves; its log stays in `build`."""
    log = folder / "engine.log"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", **engine.environment}
    with ExitStack() as running, log.open("wb") as output:
        processes = []
        for program in engine.programs:
            process = subprocess.Popen(
                program, stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=folder
            )
            running.callback(_stop, process)
            processes.append(process)

        def is_serving() -> bool:
            assert all(it.poll() is None for it in processes), log.read_text("utf-8")[-4000:]
            return _serves(port)

        wait_until(is_serving, seconds_max=_START_SECONDS_MAX, what="the engine serves")
        yield
    Path("build").mkdir(exist_ok=True)
    Path("build/engine.log").write_bytes(log.read_bytes())


def _serves(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", "/v1/models")
        return b"tiny" in connection.getresponse().read()
    except OSError:
        return False
    finally:
        connection.close()


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    process.wait(timeout=60)


def free_port() -> int:
    """Return a port on which nobody listens just now."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


if __name__ == "__main__":
    sys.exit(main())
