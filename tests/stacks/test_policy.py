"""What an operator relies on in each rendering: who reaches what, how it ends, what is secret."""

from collections.abc import Iterator
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from cli.process import Exit
from meter.sources.places import read_places
from tests.stacks.chart import CASES, EVERYTHING, MINIMAL, Engine, Manifest, Values, find_pod

pytestmark = pytest.mark.stacks
HOOKS = {"pre": "pre-install,pre-upgrade", "post": "post-install,post-upgrade"}
PEER = {"namespaceSelector": {"matchLabels": {"reports": "yes"}}}
OWN_NAMESPACE: list[Manifest] = [{"podSelector": {}}]
# What the meter takes at most to answer what it took; counting ends after it.
ANSWER_SECONDS_MAX = 5


@pytest.mark.parametrize("case", CASES)
def test_deployment__counts_on_while_it_is_replaced(engine: Engine, case: str) -> None:
    """No upgrade takes a server away before its successor is ready."""
    spec = engine.get("Deployment", values=engine.values(case))["spec"]
    assert spec["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
    }


@pytest.mark.parametrize("case", CASES)
def test_deployment__has_time_to_end(engine: Engine, case: str) -> None:
    """It takes calls while the Service still leads to it, and is not killed while it answers."""
    pod = find_pod(engine.get("Deployment", values=engine.values(case)))
    assert pod is not None
    word, seconds = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert (word, int(seconds)) == ("sleep", 5)
    assert pod["terminationGracePeriodSeconds"] >= 2 * (int(seconds) + ANSWER_SECONDS_MAX)


def test_deployment__leaves_its_number_to_the_autoscaler(engine: Engine) -> None:
    """Where one scales, no release sets the number back."""
    assert "replicas" not in engine.get("Deployment")["spec"]
    scaler = engine.get("HorizontalPodAutoscaler")["spec"]
    assert scaler["scaleTargetRef"]["name"] == engine.get("Deployment")["metadata"]["name"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (2, 6)
    fixed = engine.get("Deployment", values=MINIMAL | {"replicas": 3})
    assert fixed["spec"]["replicas"] == 3


def test_deployment__is_spread(engine: Engine) -> None:
    """Servers share neither a zone nor a node where that can be."""
    pod = find_pod(engine.get("Deployment"))
    assert pod is not None
    labels = engine.get("Deployment")["spec"]["selector"]["matchLabels"]
    spread = pod["topologySpreadConstraints"]
    assert [it["topologyKey"].rpartition("/")[2] for it in spread] == ["zone", "hostname"]
    assert all(it["labelSelector"]["matchLabels"] == labels for it in spread)


def test_disruption_budget__gives_one_at_a_time(engine: Engine) -> None:
    """Who drains nodes takes one server, waits, and is held up by none that serves nobody."""
    budget = engine.get("PodDisruptionBudget")["spec"]
    chosen = engine.get("Deployment")["spec"]["selector"]["matchLabels"]
    assert budget["selector"]["matchLabels"] == chosen
    assert budget["maxUnavailable"] == 1
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_network__lets_in_who_is_named(engine: Engine) -> None:
    """Producers reach gRPC and scrapers HTTP; where nobody is named it is the own namespace."""
    spec = engine.get("NetworkPolicy", name="tokenworks")["spec"]
    assert spec["podSelector"] == engine.get("Deployment")["spec"]["selector"]
    let_in = {rule["ports"][0]["port"]: rule["from"] for rule in spec["ingress"]}
    engines = [{"podSelector": {"matchLabels": {"engine": "yes"}}}]
    assert let_in == {
        "grpc": [PEER],
        "http": OWN_NAMESPACE,
        "otlp-grpc": engines,
        "otlp-http": engines,
    }
    assert spec["policyTypes"] == ["Ingress", "Egress"]


def test_otlp__is_where_exporters_look(engine: Engine) -> None:
    """The Service has OpenTelemetry's own ports where it is on, and neither where it is off."""
    for values, wanted in ((EVERYTHING, [7411, 7412, 4317, 4318]), (MINIMAL, [7411, 7412])):
        ports = engine.get("Service", values=values)["spec"]["ports"]
        assert [it["port"] for it in ports] == wanted
        (container,) = _containers(engine.get("Deployment", values=values))
        assert [it["containerPort"] for it in container["ports"]] == wanted
        assert {it["targetPort"] for it in ports} == {it["name"] for it in container["ports"]}
        told = {it["name"]: it.get("value") for it in container["env"]}
        assert ("TOKENWORKS_OTLP" in told) == (len(wanted) > 2)


def test_sources__are_the_file_that_the_meter_reads(engine: Engine) -> None:
    """The text of the values is a file in the pod, and another text begins new pods."""
    (container,) = _containers(engine.get("Deployment"))
    told = {it["name"]: it.get("value") for it in container["env"]}
    (mount,) = [it for it in container["volumeMounts"] if it["name"] == "sources"]
    config = engine.get("ConfigMap", name="-sources")
    assert config["data"] == {"sources.toml": EVERYTHING["sources"]}
    assert told["TOKENWORKS_SOURCES_FILE"] == f"{mount['mountPath']}/sources.toml"
    read_places(config["data"]["sources.toml"])
    sums = set()
    for text in (EVERYTHING["sources"], "[defaults]\n"):
        template = engine.get("Deployment", values=EVERYTHING | {"sources": text})["spec"][
            "template"
        ]
        sums.add(template["metadata"]["annotations"]["checksum/sources"])
        assert template["metadata"]["annotations"]["example.com/note"] == "one"
    assert len(sums) == 2


def test_network__lets_out_to_what_is_needed(engine: Engine) -> None:
    """Names, the database, exporters and engines if any, what values add; jobs less."""
    meter = engine.get("NetworkPolicy", name="tokenworks")["spec"]["egress"]
    assert [_ports(rule) for rule in meter] == [[53, 53], [5432], [9400], [8000], [4317]]
    jobs = engine.get("NetworkPolicy", name="-jobs")["spec"]
    assert [_ports(rule) for rule in jobs["egress"]] == [[53, 53], [5432]]
    assert "Ingress" in jobs["policyTypes"]
    assert "ingress" not in jobs
    quiet = MINIMAL | {"networkPolicy": {"enabled": True}}
    rules = engine.get("NetworkPolicy", name="tokenworks", values=quiet)["spec"]["egress"]
    assert [_ports(rule) for rule in rules] == [[53, 53], [5432]]


@pytest.mark.parametrize("case", CASES)
def test_rendering__holds_no_secret(engine: Engine, case: str) -> None:
    """No Secret is made; what is one comes by its name and key, or as a file that is read-only."""
    for manifest in engine.render(engine.values(case)):
        assert manifest["kind"] != "Secret"
        for container in _containers(manifest):
            names = [it["name"] for it in container["env"] if "valueFrom" in it]
            assert names == ["TOKENWORKS_DATABASE_URL"]
            assert "envFrom" not in container
            for mount in container.get("volumeMounts", []):
                assert mount.get("readOnly") or mount["name"] in {"scratch", "archive"}


@pytest.mark.parametrize("case", CASES)
def test_account__has_no_token(engine: Engine, case: str) -> None:
    """Neither the account nor a pod has a token of the Kubernetes API."""
    made = engine.render(engine.values(case))
    accounts = [it for it in made if it["kind"] == "ServiceAccount"]
    assert [it["automountServiceAccountToken"] for it in accounts] == [False] * len(accounts)
    named = {it["metadata"]["name"] for it in accounts} or {"default", "tokenworks"}
    for pod in filter(None, map(find_pod, made)):
        assert pod["serviceAccountName"] in {*named, "default"}
        assert pod["automountServiceAccountToken"] is False


def test_archive__is_seen_by_who_writes_and_reads_it(engine: Engine) -> None:
    """What left the database is where meters lay it, and where a replay looks for it."""
    for manifest in (engine.get("Deployment"), engine.get("CronJob", name="replay-check")):
        (container,) = _containers(manifest)
        told = {it["name"]: it.get("value") for it in container["env"]}
        (mount,) = [it for it in container["volumeMounts"] if it["name"] == "archive"]
        assert mount["mountPath"] == told["TOKENWORKS_ARCHIVE_FOLDER"]
        pod = find_pod(manifest)
        assert pod is not None
        claims = [it["persistentVolumeClaim"] for it in pod["volumes"] if it["name"] == "archive"]
        assert claims == [{"claimName": "archive"}]


def test_labels__are_on_everything(engine: Engine) -> None:
    """What a cluster's policy asks for stands on each object and pod, and chooses none."""
    for manifest in engine.render(EVERYTHING):
        assert manifest["metadata"]["labels"]["team"] == "billing"
        spec = manifest.get("spec", {})
        spec = spec.get("jobTemplate", {}).get("spec", spec)
        if "template" in spec:
            assert spec["template"]["metadata"]["labels"]["team"] == "billing"
        assert "team" not in str(spec.get("selector"))


def test_pods__run_where_they_are_told(engine: Engine) -> None:
    """Class, nodes and tolerations hold for jobs as for the meter."""
    pods = list(filter(None, map(find_pod, engine.render(EVERYTHING))))
    assert len(pods) == 5
    for pod in pods:
        assert pod["priorityClassName"] == "billing"
        assert pod["nodeSelector"] == {"pool": "billing"}
        assert pod["tolerations"] == [{"key": "dedicated", "operator": "Exists"}]


@pytest.mark.parametrize("stage", HOOKS)
def test_migrations__of_a_stage(engine: Engine, stage: str) -> None:
    """What servers need comes before them, what they no longer need goes after; a failure stays."""
    job = engine.get("Job", name=f"-{stage}")
    assert job["metadata"]["annotations"] == {
        "helm.sh/hook": HOOKS[stage],
        "helm.sh/hook-delete-policy": "before-hook-creation,hook-succeeded",
    }
    assert job["spec"]["backoffLimit"] == 2
    (container,) = _containers(job)
    assert container["command"] == ["tokenworks", "db", "upgrade", "--stage", stage]


def test_migrations__as_the_schema_s_owner(engine: Engine) -> None:
    """Who changes the schema may be another login than who counts; without one it is the same."""
    for values, secret in ((EVERYTHING, "owner"), (MINIMAL, "database")):
        for stage in HOOKS:
            (container,) = _containers(engine.get("Job", name=f"-{stage}", values=values))
            (told,) = container["env"]
            assert told["valueFrom"]["secretKeyRef"] == {"name": secret, "key": "url"}


def test_migrations__after_the_last_older_server(engine: Engine) -> None:
    """With an upgrade what older servers needed stays until the last may have used up its time."""
    upgrade = {it["metadata"]["name"]: it for it in engine.render(MINIMAL, is_upgrade=True)}
    deployment = find_pod(engine.get("Deployment", values=MINIMAL)) or {}
    for stage in HOOKS:
        pod = find_pod(upgrade[f"tokenworks-db-upgrade-{stage}"]) or {}
        waits = [it["command"] for it in pod.get("initContainers", [])]
        assert len(waits) == (stage == "post")
        for word, seconds in waits:
            assert word == "sleep"
            assert int(seconds) > deployment["terminationGracePeriodSeconds"]
        installed = find_pod(engine.get("Job", name=f"-{stage}", values=MINIMAL)) or {}
        assert "initContainers" not in installed


def test_migrations__by_hand(engine: Engine) -> None:
    """Who does not wait for the rollout runs what comes after it by hand."""
    made = engine.render(MINIMAL | {"migrations": {"post": False}})
    assert [it["metadata"]["name"] for it in made if it["kind"] == "Job"] == [
        "tokenworks-db-upgrade-pre"
    ]


def test_migrations__before_the_account_is_there(engine: Engine) -> None:
    """The first hook runs as an account that exists before the release does."""
    created = find_pod(engine.get("Job", name="-pre"))
    named = MINIMAL | {"serviceAccount": {"create": False, "name": "mine"}}
    given = find_pod(engine.get("Job", name="-pre", values=named))
    assert created is not None
    assert given is not None
    assert (created["serviceAccountName"], given["serviceAccountName"]) == ("default", "mine")


SCHEDULED = [
    ("billing-close", ["billing", "close", "due", "--jobs", "1"], "0 6 * * *", 2),
    ("replay-check", ["billing", "replay", "previous"], "0 8 7 * *", 1),
]


@pytest.mark.parametrize(("name", "command", "schedule", "retries"), SCHEDULED)
def test_scheduled__never_twice_at_a_time(
    engine: Engine, name: str, command: list[str], schedule: str, retries: int
) -> None:
    """One at a time, by the clock of a named zone; what a rule refuses is not tried again."""
    cron = engine.get("CronJob", name=name, values=MINIMAL)
    spec = cron["spec"]
    assert (spec["schedule"], str(ZoneInfo(spec["timeZone"]))) == (schedule, "Etc/UTC")
    assert spec["concurrencyPolicy"] == "Forbid"
    assert spec["startingDeadlineSeconds"] == 43_200
    job = spec["jobTemplate"]["spec"]
    assert job["backoffLimit"] == retries
    refused, drained = job["podFailurePolicy"]["rules"]
    assert (refused["action"], refused["onExitCodes"]["values"]) == ("FailJob", [int(Exit.REFUSED)])
    assert (drained["action"], drained["onPodConditions"][0]["type"]) == (
        "Ignore",
        "DisruptionTarget",
    )
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    (container,) = _containers(cron)
    assert container["command"] == ["tokenworks", *command]


def test_certificate__is_what_the_meter_reads(engine: Engine) -> None:
    """What cert-manager writes is what the pod mounts, for the names that the Service has."""
    certificate = engine.get("Certificate")["spec"]
    pod = find_pod(engine.get("Deployment"))
    assert pod is not None
    mounted = [it["secret"]["secretName"] for it in pod["volumes"] if "secret" in it]
    assert certificate["secretName"] in mounted
    service = engine.get("Service")["metadata"]["name"]
    assert {service, f"{service}.till.svc", "meter.test"} <= set(certificate["dnsNames"])


@pytest.mark.parametrize("http", [True, False])
def test_probes__speak_as_the_meter_does(engine: Engine, *, http: bool) -> None:
    """Over TLS where metrics and health are, and in the clear where they are not."""
    values: Values = MINIMAL | {"tls": {"existingSecret": "certificate", "http": http}}
    (container,) = _containers(engine.get("Deployment", values=values))
    schemes = {
        probe["httpGet"]["scheme"] for name, probe in container.items() if name.endswith("Probe")
    }
    assert schemes == {"HTTPS" if http else "HTTP"}
    told = {it["name"]: it.get("value") for it in container["env"]}
    assert told["TOKENWORKS_HTTP_TLS"] == str(http).lower()


def _ports(rule: Manifest) -> list[int]:
    return [it["port"] for it in rule["ports"]]


def _containers(manifest: Manifest) -> Iterator[dict[str, Any]]:
    pod = find_pod(manifest)
    yield from () if pod is None else pod["containers"]
