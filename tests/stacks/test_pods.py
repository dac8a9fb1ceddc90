"""The pods of the chart: what they may do, who finds them, and that they run as they are told."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.meter_process import refuse_exposure
from cli.process import CommandError, Exit
from cli.settings import Settings, is_loopback, read_settings
from tests.postgres import Cluster
from tests.running_meter import PEPPER, TOKENWORKS
from tests.stacks.chart import CASES, EVERYTHING, MINIMAL, Engine, Manifest, Values, find_pod

pytestmark = pytest.mark.stacks
KNOWN = {field.metadata["env"] for field in dataclasses.fields(Settings)}
COMMAND_SECONDS_MAX = 60
FREE_PORTS = ["--grpc-address", "127.0.0.1:0", "--http-address", "127.0.0.1:0"]


@pytest.mark.parametrize("case", CASES)
def test_pod__may_do_little(engine: Engine, case: str) -> None:
    """No pod is root, writes to its image, gains a privilege or speaks to the Kubernetes API."""
    for pod in _pods(engine, CASES[case]):
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


@pytest.mark.parametrize("case", CASES)
def test_pod__says_what_it_needs(engine: Engine, case: str) -> None:
    """Every container asks for CPU and memory, and has a limit of memory."""
    for pod in _pods(engine, CASES[case]):
        (container,) = pod["containers"]
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("case", CASES)
def test_pod__is_told_only_what_is_a_setting(engine: Engine, case: str) -> None:
    """Every variable is a setting of the process, which refuses one that it does not know."""
    for pod in _pods(engine, CASES[case]):
        (container,) = pod["containers"]
        names = [item["name"] for item in container["env"]]
        assert len(set(names)) == len(names)
        assert set(names) <= KNOWN


def test_pepper__is_for_the_meter_alone(engine: Engine) -> None:
    """A job has no use for the key of the API keys' hashes, and does not get it."""
    for kind in ("Job", "CronJob"):
        pod = find_pod(engine.get(kind))
        assert pod is not None
        assert not [it for it in pod.get("volumes", []) if "secret" in it]


def test_scratch__is_where_papers_are_made(engine: Engine) -> None:
    """Fonts are laid into a temporary folder, and no pod may write to its image."""
    for kind in ("Deployment", "CronJob"):
        pod = find_pod(engine.get(kind))
        assert pod is not None
        (scratch,) = [it for it in pod["volumes"] if "emptyDir" in it]
        (container,) = pod["containers"]
        assert {"name": scratch["name"], "mountPath": "/tmp"} in container["volumeMounts"]  # noqa: S108


def test_deployment__is_one_process_at_a_time(engine: Engine) -> None:
    """The old meter has ended before the new one takes the shard."""
    spec = engine.get("Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_deployment__is_asked_how_it_is(engine: Engine) -> None:
    """It is restarted when it does not live, and gets no calls when it is not ready."""
    container = _container(engine, "Deployment", values=MINIMAL)
    asked = {
        name.removesuffix("Probe"): probe["httpGet"]
        for name, probe in container.items()
        if name.endswith("Probe")
    }
    assert asked == {
        "startup": {"path": "/healthz", "port": "http"},
        "liveness": {"path": "/healthz", "port": "http"},
        "readiness": {"path": "/readyz", "port": "http"},
    }


def test_service__finds_the_meter_alone(engine: Engine) -> None:
    """The Service and the Deployment choose the meter's pods, and not those of a job."""
    chosen = engine.get("Service")["spec"]["selector"]
    deployment = engine.get("Deployment")["spec"]
    assert chosen == deployment["selector"]["matchLabels"]
    assert chosen.items() <= deployment["template"]["metadata"]["labels"].items()
    for template in (
        engine.get("Job")["spec"]["template"],
        engine.get("CronJob")["spec"]["jobTemplate"]["spec"]["template"],
    ):
        assert not chosen.items() <= template["metadata"]["labels"].items()


def test_service__leads_to_ports_that_are_open(engine: Engine) -> None:
    """Each port of the Service is one of the container, and one that the meter listens on."""
    container = _container(engine, "Deployment", values=MINIMAL)
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    service = engine.get("Service")["spec"]["ports"]
    assert {each["targetPort"]: each["port"] for each in service} == ports
    told = {item["name"]: item.get("value") for item in container["env"]}
    assert told["TOKENWORKS_GRPC_ADDRESS"] == f"0.0.0.0:{ports['grpc']}"
    assert told["TOKENWORKS_HTTP_ADDRESS"] == f"0.0.0.0:{ports['http']}"


def test_service_monitor__finds_the_service(engine: Engine) -> None:
    """Prometheus is led to the port of the metrics."""
    service, monitor = engine.get("Service"), engine.get("ServiceMonitor")
    chosen = monitor["spec"]["selector"]["matchLabels"]
    assert chosen.items() <= service["metadata"]["labels"].items()
    (endpoint,) = monitor["spec"]["endpoints"]
    (relabeling,) = endpoint.pop("metricRelabelings")
    assert endpoint == {"port": "http", "path": "/metrics", "interval": "30s"}
    # When each counter began is as many series again, which nothing asks for.
    assert relabeling["action"] == "drop"
    assert relabeling["sourceLabels"] == ["__name__"]
    dropped = re.compile(relabeling["regex"])
    assert dropped.fullmatch("tokenworks_tokens_created")
    assert not dropped.fullmatch("tokenworks_tokens_total")
    assert "http" in {each["name"] for each in service["spec"]["ports"]}
    assert monitor["metadata"]["labels"]["release"] == "operator"


def test_db_upgrade__comes_before_the_release(engine: Engine) -> None:
    """The schema is there before the meter is; a Job that failed stays to be read."""
    job = engine.get("Job")
    assert job["metadata"]["annotations"] == {
        "helm.sh/hook": "pre-install,pre-upgrade",
        "helm.sh/hook-delete-policy": "before-hook-creation,hook-succeeded",
    }
    assert job["spec"]["backoffLimit"] == 2


def test_billing_close__is_never_run_twice_at_a_time(engine: Engine) -> None:
    """The months are closed one after the other, by the clock of a zone that is named."""
    spec = engine.get("CronJob", values=MINIMAL)["spec"]
    assert (spec["schedule"], spec["timeZone"]) == ("0 6 * * *", "Etc/UTC")
    assert spec["concurrencyPolicy"] == "Forbid"
    assert spec["startingDeadlineSeconds"] == 43_200
    job = spec["jobTemplate"]["spec"]
    assert job["backoffLimit"] == 2
    (rule,) = job["podFailurePolicy"]["rules"]
    assert (rule["action"], rule["onExitCodes"]["values"]) == ("FailJob", [int(Exit.REFUSED)])
    assert job["template"]["spec"]["restartPolicy"] == "Never"


@pytest.mark.parametrize("case", CASES)
def test_deployment__may_be_reached(
    engine: Engine, case: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What the meter is told makes it listen to other machines, and it does not refuse to."""
    for name, value in _environment(engine, "Deployment", CASES[case], folder=tmp_path).items():
        monkeypatch.setenv(name, value)
    settings = read_settings()
    assert not is_loopback(settings.grpc_address)
    assert (settings.tls_certificate is not None) == ("tls" in CASES[case])
    refuse_exposure(settings)
    if "settings" in CASES[case]:
        assert settings.tiers == ("free", "high")
        assert [source.pool for source in settings.energy_sources] == ["a", "a b"]
        assert settings.buffer_bytes_max == 536_870_912
    # In the clear only where the values say so.
    exposed = dataclasses.replace(settings, tls_certificate=None, insecure=False)
    with pytest.raises(CommandError):
        refuse_exposure(exposed)


def test_release__runs(engine: Engine, cluster: Cluster, tmp_path: Path) -> None:
    """On an empty database the Job, the meter and the closing run on what their pods are given."""
    with cluster.database(template="template0") as url:
        upgraded = _run(engine, "Job", database_url=url, folder=tmp_path)
        assert (upgraded.returncode, "applied 0001" in upgraded.stdout) == (0, True), upgraded
        meter = _start(engine, database_url=url, folder=tmp_path)
        try:
            assert meter.stdout is not None
            line = meter.stdout.readline()
            assert line, (tmp_path / "meter.log").read_text("utf-8")
            http = json.loads(line)["http"]
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                path = _container(engine, "Deployment", values=MINIMAL)[probe]["httpGet"]["path"]
                with urllib.request.urlopen(f"http://{http}{path}", timeout=10) as answer:
                    assert answer.status == 200
            closed = _run(engine, "CronJob", database_url=url, folder=tmp_path)
            assert closed.returncode == 0, closed
            meter.send_signal(signal.SIGTERM)
            assert meter.wait(timeout=COMMAND_SECONDS_MAX) == 0
        finally:
            meter.kill()
            meter.communicate()


def _pods(engine: Engine, values: Values) -> Iterator[Manifest]:
    found = [find_pod(each) for each in engine.render(values)]
    assert any(found)
    return (pod for pod in found if pod is not None)


def _container(engine: Engine, kind: str, *, values: Values) -> Manifest:
    pod = find_pod(engine.get(kind, values=values))
    assert pod is not None
    (container,) = pod["containers"]
    assert isinstance(container, dict)
    return container


def _environment(
    engine: Engine, kind: str, values: Values, *, folder: Path, database_url: str = "postgresql://h"
) -> dict[str, str]:
    """What the container finds in its environment; its files lie in `folder`."""
    secrets = {
        "database": {"url": database_url, "uri": database_url},
        "pepper": {"pepper": PEPPER.hex(), "hex": PEPPER.hex()},
        "certificate": {"tls.crt": "a certificate", "tls.key": "a key"},
    }
    pod = find_pod(engine.get(kind, values=values))
    assert pod is not None
    (container,) = pod["containers"]
    places = {}
    for mount in container.get("volumeMounts", []):
        (volume,) = [each for each in pod["volumes"] if each["name"] == mount["name"]]
        if "emptyDir" in volume:
            continue
        secret = volume["secret"]
        place = folder / mount["mountPath"].strip("/")
        place.mkdir(parents=True, exist_ok=True)
        content = secrets[secret["secretName"]]
        items = secret.get("items", [{"key": key, "path": key} for key in content])
        for item in items:
            (place / item["path"]).write_text(content[item["key"]], "ascii")
        places[mount["mountPath"]] = str(place)
    told = {}
    for item in container["env"]:
        reference = item.get("valueFrom", {}).get("secretKeyRef")
        text = secrets[reference["name"]][reference["key"]] if reference else item["value"]
        for inside, outside in places.items():
            text = text.replace(inside, outside)
        told[item["name"]] = text
    return told


def _run(
    engine: Engine, kind: str, *, database_url: str, folder: Path
) -> subprocess.CompletedProcess[str]:
    """Run the container's command as its pod would."""
    told = _environment(engine, kind, EVERYTHING, folder=folder, database_url=database_url)
    command = _container(engine, kind, values=EVERYTHING)["command"]
    assert command[0] == TOKENWORKS.name
    return subprocess.run(
        [TOKENWORKS, *command[1:]],
        env=os.environ | told,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS_MAX,
        check=False,
    )


def _start(engine: Engine, *, database_url: str, folder: Path) -> subprocess.Popen[str]:
    """Start the meter as its pod would, but on ports that are free; its log is `meter.log`."""
    told = _environment(engine, "Deployment", MINIMAL, folder=folder, database_url=database_url)
    command = _container(engine, "Deployment", values=MINIMAL)["command"]
    with (folder / "meter.log").open("wb") as log:
        return subprocess.Popen(
            [TOKENWORKS, *command[1:], "--json", *FREE_PORTS],
            env=os.environ | told,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
