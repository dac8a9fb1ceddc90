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
from cli.process import CommandError
from cli.settings import Settings, is_loopback, read_settings
from tests.postgres import Cluster
from tests.running_meter import PEPPER, TOKENWORKS
from tests.stacks.chart import CASES, MINIMAL, Engine, Manifest, Values, find_pod

pytestmark = pytest.mark.stacks
KNOWN = {field.metadata["env"] for field in dataclasses.fields(Settings)}
COMMAND_SECONDS_MAX = 60
JOBS = ["db-upgrade-pre", "db-upgrade-post", "billing-close", "replay-check"]
# What lies under each key of the Secrets that values name.
SECRETS = {
    "pepper": PEPPER.hex(),
    "hex": PEPPER.hex(),
    "tls.crt": "a certificate",
    "tls.key": "a key",
    "clients.pem": "an authority",
    "ca.crt": "an authority",
}
FREE_PORTS = ["--grpc-address", "127.0.0.1:0", "--http-address", "127.0.0.1:0"]


@pytest.mark.parametrize("case", CASES)
def test_pod__may_do_little(engine: Engine, case: str) -> None:
    """No pod is root, writes to its image, gains a privilege or speaks to the Kubernetes API."""
    for pod in _pods(engine, engine.values(case)):
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
    for pod in _pods(engine, engine.values(case)):
        (container,) = pod["containers"]
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("case", CASES)
def test_pod__is_told_only_what_is_a_setting(engine: Engine, case: str) -> None:
    """Every variable is a setting of the process, which refuses one that it does not know."""
    for pod in _pods(engine, engine.values(case)):
        (container,) = pod["containers"]
        names = [item["name"] for item in container["env"]]
        assert len(set(names)) == len(names)
        assert set(names) <= KNOWN


def test_pepper__is_for_the_meter_alone(engine: Engine) -> None:
    """A job has no use for the key of the API keys' hashes, and does not get it."""
    for name in JOBS:
        pod = find_pod(_job(engine, name))
        assert pod is not None
        assert not [it for it in pod.get("volumes", []) if "secret" in it]


def test_scratch__is_where_papers_are_made(engine: Engine) -> None:
    """Fonts are laid into a temporary folder, and no pod may write to its image."""
    for made in (engine.get("Deployment"), _job(engine, "billing-close")):
        pod = find_pod(made)
        assert pod is not None
        (scratch,) = [it for it in pod["volumes"] if "emptyDir" in it]
        (container,) = pod["containers"]
        assert {"name": scratch["name"], "mountPath": "/tmp"} in container["volumeMounts"]  # noqa: S108


def test_deployment__is_asked_how_it_is(engine: Engine) -> None:
    """It is restarted when it does not live, and gets no calls when it is not ready."""
    container = _container(engine.get("Deployment", values=MINIMAL))
    asked = {
        name.removesuffix("Probe"): probe["httpGet"]
        for name, probe in container.items()
        if name.endswith("Probe")
    }
    assert asked == {
        "startup": {"path": "/healthz", "port": "http", "scheme": "HTTP"},
        "liveness": {"path": "/healthz", "port": "http", "scheme": "HTTP"},
        "readiness": {"path": "/readyz", "port": "http", "scheme": "HTTP"},
    }


def test_service__finds_the_meter_alone(engine: Engine) -> None:
    """The Service and the Deployment choose the meter's pods, and not those of a job."""
    chosen = engine.get("Service")["spec"]["selector"]
    deployment = engine.get("Deployment")["spec"]
    assert chosen == deployment["selector"]["matchLabels"]
    assert chosen.items() <= deployment["template"]["metadata"]["labels"].items()
    for name in JOBS:
        spec = _job(engine, name)["spec"]
        template = spec.get("jobTemplate", {"spec": spec})["spec"]["template"]
        assert not chosen.items() <= template["metadata"]["labels"].items()


def test_service__leads_to_ports_that_are_open(engine: Engine) -> None:
    """Each port of the Service is one of the container, and one that the meter listens on."""
    whole = _container(engine.get("Deployment"))
    ports = {each["name"]: each["containerPort"] for each in whole["ports"]}
    service = engine.get("Service")["spec"]["ports"]
    assert {each["targetPort"]: each["port"] for each in service} == ports
    container = _container(engine.get("Deployment", values=MINIMAL))
    assert ports.keys() >= {each["name"] for each in container["ports"]} == {"grpc", "http"}
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
    # Over TLS it trusts what the certificate was signed by, for a name that the certificate has.
    assert endpoint == {
        "port": "http",
        "path": "/metrics",
        "interval": "30s",
        "scheme": "https",
        "tlsConfig": {
            "serverName": "tokenworks.till.svc",
            "ca": {"secret": {"name": "tokenworks-tls", "key": "ca.crt"}},
        },
    }
    assert "tokenworks.till.svc" in engine.get("Certificate")["spec"]["dnsNames"]
    # When each counter began is as many series again, which nothing asks for.
    assert relabeling["action"] == "drop"
    assert relabeling["sourceLabels"] == ["__name__"]
    dropped = re.compile(relabeling["regex"])
    assert dropped.fullmatch("tokenworks_tokens_created")
    assert not dropped.fullmatch("tokenworks_tokens_total")
    assert "http" in {each["name"] for each in service["spec"]["ports"]}
    assert monitor["metadata"]["labels"]["release"] == "operator"


@pytest.mark.parametrize("case", CASES)
def test_deployment__may_be_reached(
    engine: Engine, case: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What the meter is told makes it listen to other machines, and it does not refuse to."""
    deployment = engine.get("Deployment", values=engine.values(case))
    sources = str(engine.values(case).get("sources", ""))
    for name, value in _environment(deployment, folder=tmp_path, sources=sources).items():
        monkeypatch.setenv(name, value)
    settings = read_settings()
    assert not is_loopback(settings.grpc_address)
    is_secret = "tls" in engine.values(case)
    assert (settings.tls_certificate is not None, settings.http_tls) == (is_secret, is_secret)
    refuse_exposure(settings)
    if case == "everything":
        assert settings.tls_client_ca is not None
        assert settings.tiers == ("free", "high")
        assert [source.pool for source in settings.energy_sources] == ["a", "a b"]
        assert settings.buffer_bytes_max == 536_870_912
    # In the clear only where the values say so.
    exposed = dataclasses.replace(settings, tls_certificate=None, insecure=False)
    with pytest.raises(CommandError):
        refuse_exposure(exposed)


def test_release__runs(engine: Engine, cluster: Cluster, tmp_path: Path) -> None:
    """On an empty database jobs and meter run on what their pods are given, one after the other."""
    with cluster.database(template="template0") as url:
        upgraded = _run(engine, "db-upgrade-pre", database_url=url, folder=tmp_path)
        assert (upgraded.returncode, "applied 0001" in upgraded.stdout) == (0, True), upgraded
        assert "_post_" not in upgraded.stdout.splitlines()[-1]
        meter = _start(engine, database_url=url, folder=tmp_path)
        try:
            assert meter.stdout is not None
            line = meter.stdout.readline()
            assert line, (tmp_path / "meter.log").read_text("utf-8")
            http = json.loads(line)["http"]
            container = _container(engine.get("Deployment", values=MINIMAL))
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                path = container[probe]["httpGet"]["path"]
                with urllib.request.urlopen(f"http://{http}{path}", timeout=10) as answer:
                    assert answer.status == 200
            for name in ("db-upgrade-post", "billing-close", "replay-check"):
                done = _run(engine, name, database_url=url, folder=tmp_path)
                assert done.returncode == 0, done
            meter.send_signal(signal.SIGTERM)
            assert meter.wait(timeout=COMMAND_SECONDS_MAX) == 0
        finally:
            meter.kill()
            meter.communicate()


def _pods(engine: Engine, values: Values) -> Iterator[Manifest]:
    found = [find_pod(each) for each in engine.render(values)]
    assert any(found)
    return (pod for pod in found if pod is not None)


def _job(engine: Engine, name: str) -> Manifest:
    kind = "Job" if name.startswith("db-upgrade") else "CronJob"
    return engine.get(kind, name=name)


def _container(manifest: Manifest) -> Manifest:
    pod = find_pod(manifest)
    assert pod is not None
    (container,) = pod["containers"]
    assert isinstance(container, dict)
    return container


def _environment(
    manifest: Manifest, *, folder: Path, database_url: str = "postgresql://h", sources: str = ""
) -> dict[str, str]:
    """What the container finds in its environment; its files lie in `folder`.

    `sources` is the text of the file of sources, which a ConfigMap has.
    """
    pod = find_pod(manifest)
    assert pod is not None
    (container,) = pod["containers"]
    places = {}
    for mount in container.get("volumeMounts", []):
        (volume,) = [each for each in pod["volumes"] if each["name"] == mount["name"]]
        if not {"secret", "configMap"} & volume.keys():
            continue
        place = folder / mount["mountPath"].strip("/")
        place.mkdir(parents=True, exist_ok=True)
        for item in volume.get("secret", {"items": ()})["items"]:
            (place / item["path"]).write_text(SECRETS[item["key"]], "ascii")
        if "configMap" in volume:
            (place / "sources.toml").write_text(sources, "utf-8")
        places[mount["mountPath"]] = str(place)
    told = {}
    for item in container["env"]:
        reference = item.get("valueFrom", {}).get("secretKeyRef")
        # The only one that is told by the environment; what is kept in files is kept there.
        text = database_url if reference else item["value"]
        for inside, outside in places.items():
            text = text.replace(inside, outside)
        told[item["name"]] = text
    return told


def _run(
    engine: Engine, name: str, *, database_url: str, folder: Path
) -> subprocess.CompletedProcess[str]:
    """Run a job's command as its pod would."""
    told = _environment(_job(engine, name), folder=folder, database_url=database_url)
    command = _container(_job(engine, name))["command"]
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
    deployment = engine.get("Deployment", values=MINIMAL)
    told = _environment(deployment, folder=folder, database_url=database_url)
    command = _container(deployment)["command"]
    with (folder / "meter.log").open("wb") as log:
        return subprocess.Popen(
            [TOKENWORKS, *command[1:], "--json", *FREE_PORTS],
            env=os.environ | told,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
