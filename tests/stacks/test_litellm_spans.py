"""LiteLLM's own OpenTelemetry callback reports to a meter, by both of its tracers."""

import os
import subprocess
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import psycopg
import pytest

from tests.acceptance.counted import wait_until
from tests.postgres import Cluster
from tests.running_meter import running_meter_on
from tests.wire.session import Session
from tokenworks.meter.v1 import usage_pb2

pytestmark = [
    pytest.mark.stacks,
    # LiteLLM takes its time to start.
    pytest.mark.timeout(300),
]
ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-litellm" / "bin" / "python"
PROGRAM = Path(__file__).with_name("litellm_spans.py")
_SECONDS_MAX = 200
_STOP_SECONDS_MAX = 60


@pytest.mark.parametrize(
    "tracer",
    [
        {},
        {"OTEL_SEMCONV_STABILITY_OPT_IN": "gen_ai_latest_experimental"},
        {"LITELLM_OTEL_V2": "true"},
    ],
    ids=["legacy", "latest", "v2"],
)
def test_litellm__exports_its_spans(
    cluster: Cluster, tmp_path: Path, tracer: Mapping[str, str]
) -> None:
    """Where spans are to be counted, an answer is on its resource's account, once and wordless."""
    # Records are set aside then.
    if not PYTHON.exists():
        pytest.skip("make stacks sets up LiteLLM")
    sources = tmp_path / "sources.toml"
    sources.write_text("[otlp]\nlitellm = 'count'\n", "utf-8")
    settings = {"otlp": "true", "sources_file": str(sources)}
    with (
        cluster.database() as url,
        running_meter_on(url, folder=tmp_path, settings=settings) as running,
        (tmp_path / "litellm.log").open("wb") as log,
    ):
        session = Session(running)
        session.create_account("acme")
        endpoint = f"http://{running.otlp_grpc}"
        program = subprocess.Popen(
            [PYTHON, PROGRAM, sysconfig.get_path("purelib")],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=log,
            env=os.environ
            | {
                "LITELLM_LOCAL_MODEL_COST_MAP": "True",
                "OTEL_EXPORTER": "otlp_grpc",
                "OTEL_ENDPOINT": endpoint,
                "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
                "OTEL_HEADERS": f"authorization=Bearer {running.api_key}",
                "OTEL_RESOURCE_ATTRIBUTES": "tokenworks.account=acme,tokenworks.tier=high",
                "OTEL_BSP_SCHEDULE_DELAY": "100",
                # By itself it gives spans up after 10 seconds, however slow the machine is.
                "OTEL_EXPORTER_OTLP_TIMEOUT": "60",
                **tracer,
            },
        )
        try:
            _wait_for_spans(url, program, log=tmp_path / "litellm.log")
            counted = session.counted()
        finally:
            try:
                program.communicate(timeout=_STOP_SECONDS_MAX)
            finally:
                program.kill()
                program.wait()
        with psycopg.connect(url) as connection:
            (claims,) = connection.execute("SELECT count(*) FROM event_claims").fetchone() or (0,)
    assert set(counted) == {
        ("acme", "high", usage_pb2.TOKEN_CLASS_INPUT),
        ("acme", "high", usage_pb2.TOKEN_CLASS_OUTPUT),
    }
    assert counted["acme", "high", usage_pb2.TOKEN_CLASS_INPUT] == 10
    assert claims == 1
    assert b"SECRET" not in running.log.read_bytes()


def _wait_for_spans(database_url: str, program: "subprocess.Popen[bytes]", *, log: Path) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:

        def is_there() -> bool:
            assert program.poll() is None, log.read_text("utf-8")
            return connection.execute("SELECT count(*) FROM event_claims").fetchone() != (0,)

        wait_until(
            is_there,
            seconds_max=_SECONDS_MAX,
            what=lambda: f"LiteLLM's spans are there; it says {log.read_text('utf-8')[-2_000:]}",
        )
