"""The one reading of environment and file."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from cli.settings import Settings, SettingsError, is_loopback, read_settings
from meter.options import EnergySource, EnginePlace


def test_read_settings__nothing_given() -> None:
    """Without any setting the defaults hold, and they listen to this machine only."""
    settings = read_settings()
    assert settings == Settings()
    assert is_loopback(settings.grpc_address)
    assert is_loopback(settings.http_address)


def test_read_settings__order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flag goes before the environment, the environment before the file."""
    config = tmp_path / "tokenworks.toml"
    config.write_text('shard = 1\nlog_level = "error"\ntiers = ["low", "high"]\n')
    monkeypatch.setenv("TOKENWORKS_CONFIG", str(config))
    monkeypatch.setenv("TOKENWORKS_SHARD", "2")
    monkeypatch.setenv("TOKENWORKS_LOG_LEVEL", "warning")
    settings = read_settings(flags={"shard": "3", "log_level": None})
    assert (settings.shard, settings.log_level, settings.tiers) == (3, "warning", ("low", "high"))


def test_read_settings__all_faults_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever configures wrongly is told everything that is wrong, each with its place."""
    config = tmp_path / "tokenworks.toml"
    config.write_text("shard = -1\ncolour = 'red'\n")
    monkeypatch.setenv("TOKENWORKS_GRPC_ADRESS", "127.0.0.1:1")
    monkeypatch.setenv("TOKENWORKS_LOG_LEVEL", "loud")
    with pytest.raises(SettingsError) as refused:
        read_settings(config=config, flags={"http_address": "nowhere"})
    assert str(refused.value).splitlines() == [
        f"{config}: colour: no such setting",
        "TOKENWORKS_GRPC_ADRESS: no such setting",
        "--http-address: must be host:port, for instance 127.0.0.1:7411",
        f"{config}: shard: must be 0 to 32767",
        "TOKENWORKS_LOG_LEVEL: must be one of debug, info, warning, error",
    ]


WRONG_ENERGY = [
    ("energy_scrape_seconds", "0", "1 to 3600"),
    ("energy_sources", "http://node-1/metrics", "must be pool=URL"),
    ("energy_sources", "=http://node-1/metrics", "must be pool=URL"),
    ("energy_sources", "h100=", "must be pool=URL"),
    ("energy_sources", "p" * 65 + "=http://node-1/metrics", "must be pool=URL"),
    *(
        ("energy_sources", f"h100={url}", "must be like http://")
        for url in (
            "node-1:9400/metrics",
            "https://node-1/metrics",
            "file:///etc/passwd",
            "http:///metrics",
            "http://node-1:99999/metrics",
            "http://node-1:0/metrics",
            "http://user:password@node-1/metrics",
            "http://node-1/me trics",
            "http://node-1/metrics\r\nHost: other",
            "http://[::1/metrics",
            f"http://{'n' * 64}/metrics",
        )
    ),
    ("energy_sources", "a=http://n/m,b=http://n/m", "a place of its own"),
    ("energy_sources", "a=nvml,b=nvml", "a place of its own"),
    ("customer_metrics_max", "101", "0 to 100"),
    *(
        ("energy_sources", f"h100={rating}", "whole watts from 1 to 100000000")
        for rating in (
            "static",
            "static:",
            "static:0",
            "static:-5",
            "static:7.5",
            "static:100000001",
            "static:7e3",
            "static: 5",
            "NVML",
            "nvml:0",
        )
    ),
    ("energy_sources", "a=static:5,a=http://n/m", "nothing beside the rating of a"),
    ("energy_sources", "a=nvml,a=static:5", "nothing beside the rating of a"),
    ("energy_sources", "a=static:5,a=static:5", "nothing beside the rating of a"),
    ("energy_collect_seconds", "0", "1 to 3600"),
    ("energy_sources", ",".join(f"a=http://n/{n}" for n in range(257)), "at most 256"),
]


WRONG_ENGINES = [
    ("engines", "http://node-1/metrics", "must be pool=URL"),
    ("engines", "=http://node-1/metrics", "must be pool=URL"),
    ("engines", "h100=nvml", "must be like http://"),
    ("engines", "h100=https://node-1/metrics", "must be like http://"),
    ("engines", "a=http://n/m,b=http://n/m", "a URL of its own"),
    ("engines", ",".join(f"a=http://n/{n}" for n in range(1_025)), "at most 1024"),
    ("engine_drift_hold_ppm", "0", "1 to 1000000"),
]


@pytest.mark.parametrize(
    ("name", "text", "rule"),
    [
        *WRONG_ENGINES,
        ("database_url", "mysql://localhost", "must begin with postgresql://"),
        ("database_url", " ", "not empty"),
        ("grpc_address", "7411", "host:port"),
        ("grpc_address", "127.0.0.1:65536", "host:port"),
        ("grpc_address", "127.0.0.1:-1", "host:port"),
        ("insecure", "perhaps", "true or false"),
        ("shard", "1.5", "whole number"),
        ("shard", "32768", "0 to 32767"),
        ("buffer_bytes_max", "1024", "1048576 to"),
        ("key_pepper_file", "/no/such/file", "is no file"),
        ("tiers", "low,,high", "not empty"),
        ("tiers", "low,low", "different names"),
        ("tiers", "Low", "different names"),
        ("tls_key", "/no/such/file", "is no file"),
        ("sandbox_clock", "soon", "instant in UTC"),
        ("sandbox_clock", "2026-10-01", "instant in UTC"),
        ("sandbox_clock", "2026-10-01T00:00:00", "instant in UTC"),
        ("sandbox_clock", "2026-10-01T00:00:00+02:00", "instant in UTC"),
        ("sandbox_clock", "1999-12-31T23:59:59Z", "2000 to 2199"),
        ("sandbox_clock", "2200-01-01T00:00:00Z", "2000 to 2199"),
        ("silence_seconds", "9", "10 to 86400"),
        ("silence_seconds", "86401", "10 to 86400"),
        ("durable_standbys", "a,a", "different application_names"),
        ("durable_standbys", "a,,b", "not empty"),
        ("durable_standbys", "a\tb", "different application_names"),
        ("durable_standbys", "s" * 64, "different application_names"),
        *WRONG_ENERGY,
    ],
)
def test_read_settings__wrong_value(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, rule: str
) -> None:
    """A value out of its form or range is refused with the rule, without repeating a secret."""
    monkeypatch.setenv(f"TOKENWORKS_{name.upper()}", text)
    with pytest.raises(SettingsError, match=f"^TOKENWORKS_{name.upper()}: .*{rule}"):
        read_settings()


@pytest.mark.parametrize("written", ["2026-10-01T00:00:00Z", '"2026-10-01T00:00:00Z"'])
def test_read_settings__instant_in_file(tmp_path: Path, written: str) -> None:
    """An instant is a time of TOML, or a text."""
    config = tmp_path / "tokenworks.toml"
    config.write_text(f"sandbox_clock = {written}\n")
    assert read_settings(config=config).sandbox_clock == datetime(2026, 10, 1, tzinfo=UTC)


@pytest.mark.parametrize("name", ["energy_scrape_seconds", "energy_collect_seconds"])
def test_read_settings__rates_need_samples(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Energy that is read or collected too seldom for the rules is refused at the start."""
    for seconds in ("75", "76"):
        monkeypatch.setenv(f"TOKENWORKS_{name.upper()}", seconds)
        if seconds == "75":
            assert getattr(read_settings(), name) == 75
            continue
        with pytest.raises(SettingsError) as failure:
            read_settings()
        assert str(failure.value) == (
            f"{name}: must be at most 75: the recording rules look back 300 seconds, and a rate"
            " needs 4 samples in them"
        )


def test_read_settings__sources_of_each_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool may be read by exporters and by NVML; a rating stands alone for its own."""
    written = "h100=http://n/m, h100 = nvml,old=static:7000,older=static:100000000"
    monkeypatch.setenv("TOKENWORKS_ENERGY_SOURCES", written)
    first, second, third, fourth = read_settings().energy_sources
    assert (first.pool, first.is_nvml, first.static_watts) == ("h100", False, None)
    assert (second.pool, second.is_nvml, second.static_watts) == ("h100", True, None)
    assert (third.pool, third.is_nvml, third.static_watts) == ("old", False, 7_000)
    assert fourth.static_watts == 100_000_000


def test_read_settings__energy_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources are pool=URL, in a line or in a list; a pool may have many, an URL one pool."""
    first = EnergySource(pool="h100", url="http://node-1:9400/metrics")
    second = EnergySource(pool="h100", url="http://[::1]/metrics?a=b")
    config = tmp_path / "tokenworks.toml"
    config.write_text(f'energy_sources = ["h100={first.url}", "h100={second.url}"]\n')
    assert read_settings(config=config).energy_sources == (first, second)
    monkeypatch.setenv("TOKENWORKS_ENERGY_SOURCES", f" h100 = {first.url} , h100={second.url}")
    assert read_settings().energy_sources == (first, second)


def test_read_settings__engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines are pool=URL, in a line or in a list; a pool may have many."""
    first = EnginePlace(pool="h100", url="http://node-1:8000/metrics")
    second = EnginePlace(pool="h100", url="http://node-2:8000/prometheus/metrics")
    config = tmp_path / "tokenworks.toml"
    config.write_text(f'engines = ["h100={first.url}", "h100={second.url}"]\n')
    assert read_settings(config=config).engines == (first, second)
    monkeypatch.setenv("TOKENWORKS_ENGINES", f" h100 = {first.url} , h100={second.url}")
    assert read_settings().engines == (first, second)


def test_read_settings__standbys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Standbys are named in a line or in a list; a name may have blanks inside, and one letter."""
    config = tmp_path / "tokenworks.toml"
    config.write_text('durable_standbys = ["standby 1", "b"]\n')
    assert read_settings(config=config).durable_standbys == ("standby 1", "b")
    monkeypatch.setenv("TOKENWORKS_DURABLE_STANDBYS", " standby 1 , b")
    assert read_settings().durable_standbys == ("standby 1", "b")


def test_read_settings__wrong_kind_in_file(tmp_path: Path) -> None:
    """A table, a list or a truth value is no number and no text."""
    config = tmp_path / "tokenworks.toml"
    config.write_text("shard = true\ngrpc_address = ['a']\n[server]\nhost = 'x'\n")
    with pytest.raises(SettingsError) as refused:
        read_settings(config=config)
    assert len(str(refused.value).splitlines()) == 3


@pytest.mark.parametrize("content", [None, "shard = ", b"\xff"])
def test_read_settings__unreadable_file(tmp_path: Path, content: str | bytes | None) -> None:
    """A file that is missing or no TOML is a fault that names it."""
    config = tmp_path / "tokenworks.toml"
    if content is not None:
        config.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SettingsError, match=str(config)):
        read_settings(config=config)


def test_read_settings__half_a_tls_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate without its key would listen in the clear: refused."""
    certificate = tmp_path / "certificate.pem"
    certificate.touch()
    monkeypatch.setenv("TOKENWORKS_TLS_CERTIFICATE", str(certificate))
    with pytest.raises(SettingsError, match="both or neither"):
        read_settings()


def test_read_settings__kubernetes_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Kubernetes says of a Service called tokenworks is no misspelt setting."""
    monkeypatch.setenv("TOKENWORKS_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("TOKENWORKS_PORT_7411_TCP_ADDR", "10.0.0.1")
    monkeypatch.setenv("TOKENWORKS_METER_SERVICE_PORT_GRPC", "7411")
    assert read_settings() == Settings()


def test_settings__shown() -> None:
    """Neither the database's password nor the API key is shown with the other settings."""
    shown = repr(Settings(database_url="postgresql://u:hidden@h/d", api_key="hidden"))
    assert "hidden" not in shown


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:7411", True),
        ("127.8.8.8:7411", True),
        ("[::1]:7411", True),
        ("localhost:7411", True),
        ("0.0.0.0:7411", False),
        ("[::]:7411", False),
        ("10.0.0.1:7411", False),
        ("localhost.example.com:7411", False),
    ],
)
def test_is_loopback__address(address: str, *, expected: bool) -> None:
    """Only addresses that no other machine can reach count as this machine's own."""
    assert is_loopback(address) is expected
