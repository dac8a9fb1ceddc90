"""The chart as Helm's own engine renders it, and values to render it with."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

CHART = Path(__file__).parents[2] / "helm/tokenworks"
# Whole files of values, for those who install it.
EXAMPLES = tuple(sorted(path.stem for path in (CHART / "examples").glob("*.yaml")))
OLDEST_KUBERNETES = "1.29"
RELEASE = "tokenworks"
NAMESPACE = "till"

# An object of Kubernetes: JSON.
Manifest = dict[str, Any]
Values = dict[str, Any]

MINIMAL: Values = {
    "image": {"repository": "registry.example.com/tokenworks"},
    "database": {"existingSecret": "database"},
    "keyPepper": {"existingSecret": "pepper"},
}
TLS: Values = MINIMAL | {"insecure": False, "tls": {"existingSecret": "certificate"}}
BARE: Values = MINIMAL | {
    "billingClose": {"enabled": False},
    "replayCheck": {"enabled": False},
    "migrations": {"post": False},
    "podDisruptionBudget": {"enabled": False},
    "serviceAccount": {"create": False},
}
EVERYTHING: Values = {
    "image": {
        "repository": "registry.example.com/tokenworks",
        "tag": "1.2.3",
        "pullPolicy": "Always",
        "pullSecrets": ["registry"],
    },
    "database": {"existingSecret": "database", "key": "uri"},
    "keyPepper": {"existingSecret": "pepper", "key": "hex"},
    "insecure": False,
    "tls": {
        "clientCa": {"existingSecret": "authority", "key": "clients.pem"},
        "certManager": {"enabled": True, "issuer": {"name": "factory"}, "dnsNames": ["meter.test"]},
    },
    "autoscaling": {"enabled": True},
    "networkPolicy": {
        "enabled": True,
        "grpcFrom": [{"namespaceSelector": {"matchLabels": {"reports": "yes"}}}],
        "otlpFrom": [{"podSelector": {"matchLabels": {"engine": "yes"}}}],
        "egress": [{"ports": [{"port": 4317, "protocol": "TCP"}]}],
    },
    "serviceAccount": {"annotations": {"example.com/role": "meter"}},
    "labels": {"team": "billing"},
    "podAnnotations": {"example.com/note": "one"},
    "priorityClassName": "billing",
    "nodeSelector": {"pool": "billing"},
    "tolerations": [{"key": "dedicated", "operator": "Exists"}],
    "settings": {
        "tiers": ["free", "high"],
        "energy_sources": ["a=http://127.0.0.1:9400/metrics", "a b=http://127.0.0.1:9401/metrics"],
        "durable_standbys": ["standby-1", "standby 2"],
        "silence_seconds": 300,
        "engines": ["a=http://127.0.0.1:8000/metrics"],
        "engine_drift_hold_ppm": 20000,
        "energy_scrape_seconds": 75,
        "energy_collect_seconds": 60,
        "customer_metrics_max": 20,
        "buffer_bytes_max": 536_870_912,
        "calls_per_second_max": 500,
        "connection_age_seconds": 300,
        "journal_retention_days": 400,
        "log_format": "json",
        "otlp_traces_endpoint": "http://collector.monitoring.svc:4317",
        "log_level": "debug",
    },
    "otlp": {"enabled": True},
    "sources": '[defaults]\ntier = "free"\n',
    "archive": {"existingClaim": "archive"},
    "migrations": {"database": {"existingSecret": "owner"}},
    "resources": {"requests": {"cpu": 4, "memory": "4Gi"}, "limits": {"memory": "4Gi"}},
    "billingClose": {
        "schedule": "30 5 6 * *",
        "timeZone": "America/Los_Angeles",
        "processes": 4,
    },
    "monitoring": {
        "serviceMonitor": {"enabled": True, "interval": "30s", "labels": {"release": "operator"}},
        "prometheusRule": {"enabled": True, "labels": {"release": "operator"}},
        "dashboard": {
            "enabled": True,
            "labels": {"grafana": "yes"},
            "annotations": {"grafana_folder": "Tokenworks"},
        },
    },
}
_CASES: Mapping[str, Values] = {
    "minimal": MINIMAL,
    "secret": TLS,
    "bare": BARE,
    "everything": EVERYTHING,
}
CASES = (*_CASES, *EXAMPLES)


class Engine:
    """Helm's engine on a chart."""

    def __init__(self, helm: ModuleType, *, chart: Path = CHART) -> None:
        """Load the chart."""
        self._helm = helm
        self._path = chart
        self._chart = helm.Chart.load(chart)

    def lint(self, values: Values) -> list[str]:
        """What `helm lint --strict` finds worth more than a remark, for the oldest Kubernetes."""
        report = self._helm.lint(
            self._path, values, strict=True, kube_version=f"v{OLDEST_KUBERNETES}.0"
        )
        remarks = {0, 1}
        return [
            *report["errors"],
            *(each["error"] for each in report["messages"] if each["severity"] not in remarks),
        ]

    def find_refusal(self, values: Values) -> str | None:
        """What the schema says against the values; None when it accepts them."""
        try:
            self._chart.validate_schema(values)
        except self._helm.HelmValuesError as error:
            return str(error)
        return None

    def values(self, case: str) -> Values:
        """The values of a case: one of those above, or an example's file."""
        if case in _CASES:
            return _CASES[case]
        text = (self._path / "examples" / f"{case}.yaml").read_text("utf-8")
        values: Values = self._helm.values_from_yaml(text)
        return values

    def render(
        self, values: Values, *, release: str = RELEASE, is_upgrade: bool = False
    ) -> list[Manifest]:
        """The objects of a release, read from YAML as Kubernetes reads it."""
        return list(self._objects(values, release=release, is_upgrade=is_upgrade))

    def get(self, kind: str, *, name: str = "", values: Values = EVERYTHING) -> Manifest:
        """The only object of this kind whose name ends so."""
        (found,) = [
            each
            for each in self.render(values)
            if each["kind"] == kind and each["metadata"]["name"].endswith(name)
        ]
        return found

    def texts(
        self, values: Values, *, release: str = RELEASE, is_upgrade: bool = False
    ) -> dict[str, str]:
        """The objects of a release as they are written, by the name of their template."""
        texts: dict[str, str] = self._chart.render(
            values,
            name=release,
            namespace=NAMESPACE,
            is_install=not is_upgrade,
            is_upgrade=is_upgrade,
        )
        # Every template makes one object or none.
        return {
            name.rpartition("/")[2]: text
            for name, text in sorted(texts.items())
            if name.endswith(".yaml") and text.strip()
        }

    def _objects(self, values: Values, *, release: str, is_upgrade: bool) -> Iterator[Manifest]:
        for text in self.texts(values, release=release, is_upgrade=is_upgrade).values():
            yield self._helm.values_from_yaml(text)


def find_pod(manifest: Manifest) -> Manifest | None:
    """The spec of the pods that an object starts; None when it starts none."""
    spec = manifest.get("spec", {})
    spec = spec.get("jobTemplate", {}).get("spec", spec)
    found: Manifest | None = spec.get("template", {}).get("spec")
    return found
