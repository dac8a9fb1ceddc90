"""The chart: what its values may be, what it makes of them, and that its pods can run."""

import dataclasses
import json
import re
import shutil
from pathlib import Path
from types import ModuleType

import pytest

from cli.settings import Settings
from tests.stacks.chart import (
    CASES,
    CHART,
    EVERYTHING,
    EXAMPLES,
    MINIMAL,
    OLDEST_KUBERNETES,
    Engine,
    Values,
)
from tests.stacks.golden import FOLDER, written
from tests.stacks.queries import DASHBOARDS

pytestmark = pytest.mark.stacks
ALWAYS = ["CronJob"] * 2 + ["Deployment"] + ["Job"] * 2
ALWAYS += ["PodDisruptionBudget", "Service", "ServiceAccount"]
FOREIGN = ("monitoring.coreos.com/", "cert-manager.io/")
RELEASE_CHARS_MAX = 53
NAME_CHARS_MAX = 63
CRON_JOB_NAME_CHARS_MAX = 52
CONFIG_MAP_BYTES_MAX = 1_048_576


@pytest.mark.parametrize("case", CASES)
def test_lint__finds_nothing(engine: Engine, case: str) -> None:
    """Helm's own lint has no error and no warning, on the oldest Kubernetes that is supported."""
    assert engine.lint(engine.values(case)) == []


REFUSED: list[tuple[Values, list[str]]] = [
    ({}, ["'/image': missing property 'repository'", "'/database'", "'/keyPepper'"]),
    (MINIMAL | {"insecure": False}, ["'/insecure': value must be true", "'/tls/existingSecret'"]),
    (MINIMAL | {"replica": 2}, ["additional properties 'replica' not allowed"]),
    (MINIMAL | {"replicas": 0}, ["'/replicas'"]),
    (MINIMAL | {"settings": {"journal_retention_days": 400}}, ["'/archive/existingClaim'"]),
    (MINIMAL | {"drain": {"graceSeconds": 10}}, ["'/drain/graceSeconds'"]),
    (MINIMAL | {"topologySpread": {"whenUnsatisfiable": "Never"}}, ["'/topologySpread/"]),
    (MINIMAL | {"tls": {"clientCa": {"existingSecret": "a"}}}, ["'/tls/"]),
    (MINIMAL | {"tls": {"certManager": {"enabled": True}}}, ["'/tls/certManager/issuer/name'"]),
    (
        MINIMAL
        | {
            "tls": {
                "existingSecret": "a",
                "certManager": {"enabled": True, "issuer": {"name": "b"}},
            }
        },
        ["'/tls/existingSecret'"],
    ),
    (MINIMAL | {"serviceAccount": {"create": True, "name": "mine"}}, ["'/serviceAccount"]),
    (MINIMAL | {"otlp": True}, ["'/otlp'"]),
    (MINIMAL | {"sources": {"defaults": {"tier": "free"}}}, ["'/sources'"]),
    (MINIMAL | {"settings": {"otlp": True}}, ["'otlp' not allowed"]),
    (MINIMAL | {"keyPepper": {"pepper": "00"}}, ["'/keyPepper'", "'pepper' not allowed"]),
    (MINIMAL | {"billingClose": {"processes": 65}}, ["'/billingClose/processes'"]),
    (MINIMAL | {"replayCheck": {"schedule": "monthly"}}, ["'/replayCheck/schedule'"]),
    (MINIMAL | {"database": {"url": "postgresql://u:p@h/d"}}, ["'/database'", "'url' not allowed"]),
    (MINIMAL | {"settings": {"sandbox_clock": "2026-10-01T00:00:00Z"}}, ["'sandbox_clock'"]),
    (MINIMAL | {"settings": {"database_url": "postgresql://u:p@h/d"}}, ["'database_url'"]),
    (MINIMAL | {"settings": {"tiers": "free,high"}}, ["'/settings/tiers': got string"]),
    (MINIMAL | {"settings": {"tiers": ["Free"]}}, ["'/settings/tiers/0'"]),
    (
        MINIMAL | {"settings": {"energy_sources": ["a=nvml", "a=static:0"]}},
        ["'/settings/energy_sources/1'"],
    ),
    (MINIMAL | {"settings": {"customer_metrics_max": 101}}, ["'/settings/customer_metrics_max'"]),
    (MINIMAL | {"settings": {"energy_sources": ["h100"]}}, ["'/settings/energy_sources/0'"]),
    (MINIMAL | {"settings": {"silence_seconds": 5}}, ["'/settings/silence_seconds'"]),
    (MINIMAL | {"settings": {"durable_standbys": ["a,b"]}}, ["'/settings/durable_standbys/0'"]),
    (MINIMAL | {"settings": {"buffer_bytes_max": "256Mi"}}, ["'/settings/buffer_bytes_max'"]),
    (MINIMAL | {"billingClose": {"schedule": "@monthly"}}, ["'/billingClose/schedule'"]),
    (MINIMAL | {"billingClose": {"schedule": "TZ=UTC 0 6 4 * *"}}, ["'/billingClose/schedule'"]),
    (MINIMAL | {"billingClose": {"timeZone": ""}}, ["'/billingClose/timeZone'"]),
    (MINIMAL | {"monitoring": {"dashboard": {"labels": {"a": 1}}}}, ["'/monitoring/dashboard"]),
]


@pytest.mark.parametrize(("values", "told"), REFUSED)
def test_values__refused(engine: Engine, values: Values, told: list[str]) -> None:
    """What makes no sense is refused before anything is rendered, by the name of the value."""
    message = engine.find_refusal(values) or ""
    assert not [words for words in told if words not in message], message


@pytest.mark.parametrize("case", CASES)
def test_values__accepted(engine: Engine, case: str) -> None:
    """The values that the other tests render are those that the schema allows."""
    assert engine.find_refusal(engine.values(case)) is None


WATCHED = ["ConfigMap", "PrometheusRule", "ServiceMonitor"]
FENCED = ["NetworkPolicy"] * 2


@pytest.mark.parametrize(
    ("case", "kinds"),
    [
        ("minimal", ALWAYS),
        ("secret", ALWAYS),
        ("bare", ["Deployment", "Job", "Service"]),
        (
            "everything",
            [*ALWAYS, *WATCHED, *FENCED, "Certificate", "ConfigMap", "HorizontalPodAutoscaler"],
        ),
        ("smallest", ALWAYS),
        ("tls", [*ALWAYS, "Certificate"]),
        ("highly-available", [*ALWAYS, *FENCED, "HorizontalPodAutoscaler"]),
        ("monitored", [*ALWAYS, *WATCHED]),
        ("gateways", [*ALWAYS, *FENCED, "ConfigMap"]),
        (
            "shared-cluster",
            [*["CronJob"] * 2, "Deployment", "Job", "PodDisruptionBudget", "Service", *FENCED],
        ),
    ],
)
def test_render__makes_what_was_asked_for(engine: Engine, case: str, kinds: list[str]) -> None:
    """What needs something else in the cluster is made when asked for, and not before."""
    made = sorted(each["kind"] for each in engine.render(engine.values(case)))
    assert made == sorted(kinds)


def test_render__as_part_of_another_chart(helm: ModuleType, tmp_path: Path) -> None:
    """A chart that has this one among its own may render it, with values of its name."""
    (tmp_path / "Chart.yaml").write_text("{apiVersion: v2, name: factory, version: 1.0.0}", "utf-8")
    shutil.copytree(CHART, tmp_path / "charts/tokenworks")
    factory = Engine(helm, chart=tmp_path)
    assert factory.find_refusal({"tokenworks": MINIMAL}) is None
    assert len(factory.render({"tokenworks": MINIMAL})) == len(ALWAYS)


@pytest.mark.parametrize("version", [OLDEST_KUBERNETES, "newest"])
@pytest.mark.parametrize("case", CASES)
def test_manifest__is_of_kubernetes(
    engine: Engine,
    kubernetes: ModuleType,
    case: str,
    version: str,
) -> None:
    """Each object is one of the oldest and of the newest Kubernetes, to the last key."""
    version = kubernetes.latest_version() if version == "newest" else version
    for manifest in engine.render(engine.values(case), is_upgrade=True):
        if not manifest["apiVersion"].startswith(FOREIGN):
            kubernetes.validate(manifest, version, strict=True)


def test_manifest__misspelt(engine: Engine, kubernetes: ModuleType) -> None:
    """The check above tells a key that Kubernetes does not know."""
    job = engine.get("CronJob", name="billing-close")
    job["spec"]["concurencyPolicy"] = job["spec"].pop("concurrencyPolicy")
    with pytest.raises(kubernetes.ValidationError, match="concurencyPolicy"):
        kubernetes.validate(job, OLDEST_KUBERNETES, strict=True)


def test_kubernetes__oldest_is_that_of_the_chart(helm: ModuleType) -> None:
    """The chart refuses what is older than the oldest that it is checked for."""
    with helm.Chart.load(CHART) as chart:
        assert chart.metadata["kubeVersion"] == f">={OLDEST_KUBERNETES}.0-0"


def test_name__of_a_long_release(engine: Engine) -> None:
    """A release may have the longest name that Helm allows."""
    for manifest in engine.render(EVERYTHING, release="x" * RELEASE_CHARS_MAX):
        is_cron_job = manifest["kind"] == "CronJob"
        limit = CRON_JOB_NAME_CHARS_MAX if is_cron_job else NAME_CHARS_MAX
        assert len(manifest["metadata"]["name"]) <= limit


def test_dashboards__are_carried_unchanged(engine: Engine) -> None:
    """The ConfigMap holds the very files, under the labels that the sidecar looks for."""
    carried = engine.get("ConfigMap", name="-dashboard")
    assert {name: json.loads(text) for name, text in carried["data"].items()} == {
        f"tokenworks-{name}.json": dashboard for name, dashboard in DASHBOARDS.items()
    }
    assert carried["metadata"]["labels"]["grafana"] == "yes"
    assert carried["metadata"]["annotations"] == {"grafana_folder": "Tokenworks"}


def test_dashboards__fit_into_a_config_map(engine: Engine) -> None:
    """Kubernetes takes no more than a MiB; Helm's own record of a release holds them too."""
    assert len(json.dumps(engine.get("ConfigMap", name="-dashboard"))) < CONFIG_MAP_BYTES_MAX / 2


@pytest.mark.parametrize("example", EXAMPLES)
def test_example__is_rendered_as_it_was(engine: Engine, example: str) -> None:
    """What a change of the chart changes for those who install it stands in the change."""
    golden = (FOLDER / f"{example}.yaml").read_text("utf-8")
    assert written(engine, example) == golden, "to renew it: python -m tests.stacks.golden"


def test_examples__are_six() -> None:
    """Each example has its golden file, and no other is kept."""
    assert len(EXAMPLES) == 6
    assert sorted(path.stem for path in FOLDER.glob("*.yaml")) == list(EXAMPLES)


def test_settings__are_those_of_the_meter() -> None:
    """What `settings` may hold is a setting, and what the chart decides by itself is none of it."""
    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    named = set(schema["properties"]["settings"]["properties"])
    own = {"database_url", "key_pepper_file", "grpc_address", "http_address", "insecure"}
    own |= {"otlp", "otlp_grpc_address", "otlp_http_address", "sources_file"}
    own |= {"tls_certificate", "tls_key", "tls_client_ca", "http_tls", "archive_folder"}
    # A shard is whichever is free, a sandbox is driven by hand, a pod more does what a worker more
    # does, the rest is of commands and `up`.
    others = {"shard", "sandbox_clock", "workers", "pg_bin", "server", "api_key"}
    others |= {"credentials_file"}
    others |= {"ca_certificate", "client_certificate", "client_key"}
    assert named | own | others == {field.name for field in dataclasses.fields(Settings)}
    assert not named & (own | others)


def test_page__tells_of_each_value(engine: Engine) -> None:
    """Whoever installs it finds each value, setting and example on the page."""
    page = (CHART.parents[1] / "docs/operating/kubernetes.md").read_text("utf-8")
    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))["properties"]
    values = [name for name in schema if name != "global"]
    assert not [name for name in values if not re.search(rf"`{name}[`.]", page)]
    assert not [name for name in schema["settings"]["properties"] if f"`{name}`" not in page]
    assert not [name for name in EXAMPLES if f"`{name}.yaml`" not in page]
    assert engine.values("smallest")["image"]["repository"] in page
