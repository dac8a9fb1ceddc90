"""What doctor thinks of what this machine was told: settings, and certificates in files."""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Final

from cli.doctor.check import Check, Mark, format_age
from cli.settings import PREFIX, Settings, is_loopback
from meter.certificates import (
    CertificateFault,
    CertificateFiles,
    Certificates,
    read_certificates,
)
from meter.domain.times import to_iso

_SECONDS_WARN: Final = 14 * 86_400


def check_settings(settings: Settings, *, sources: Mapping[str, str]) -> Check:
    """Return what is set and from where; `sources` has the place of each, by its name."""
    facts = {name: _told(settings, name, sources[name]) for name in sorted(sources)}
    places = sorted({it["from"] for it in facts.values()})
    says = "; ".join(_listed(facts, place) for place in places) or "all as by default"
    exposed = [
        address
        for address in (settings.grpc_address, settings.http_address)
        if settings.insecure and settings.tls_certificate is None and not is_loopback(address)
    ]
    if not exposed:
        return Check(name="settings", mark=Mark.OK, says=says, facts=facts)
    return Check(
        name="settings",
        mark=Mark.WARN,
        says=f"{says}; {' and '.join(exposed)} can be reached in the clear",
        do="set TOKENWORKS_TLS_CERTIFICATE and TOKENWORKS_TLS_KEY: who listens on the way reads"
        " API keys",
        facts=facts,
    )


def check_certificates(settings: Settings, *, now_ms: int) -> Iterator[Check]:
    """Yield a check for the server's certificate and one for the command's, if they are set."""
    if settings.tls_certificate is not None and settings.tls_key is not None:
        files = CertificateFiles(
            certificate=settings.tls_certificate,
            key=settings.tls_key,
            client_ca=settings.tls_client_ca,
        )
        yield _check_files("certificate", files=files, now_ms=now_ms)
    if settings.client_certificate is not None and settings.client_key is not None:
        files = CertificateFiles(
            certificate=settings.client_certificate, key=settings.client_key, client_ca=None
        )
        yield _check_files("client certificate", files=files, now_ms=now_ms)


def _check_files(name: str, *, files: CertificateFiles, now_ms: int) -> Check:
    do = "put a whole pair there: what runs reads it again, and keeps the old one until then"
    try:
        found = read_certificates(files)
    except CertificateFault as fault:
        return Check(name=name, mark=Mark.FAIL, says=str(fault), do=do, facts={})
    facts: dict[str, object] = {
        "file": str(files.certificate),
        "begin": to_iso(found.begin_seconds * 1000),
        "expiry": to_iso(found.expiry_seconds * 1000),
    }
    says = f"{files.certificate} fits its key"
    authorities = found.client_ca_expiry_seconds
    if authorities is not None:
        facts["client_ca_expiry"] = to_iso(authorities * 1000)
    mark, about = _judge(found, now_seconds=now_ms // 1000)
    return Check(name=name, mark=mark, says=f"{says}; {about}", do=do, facts=facts)


def _judge(found: Certificates, *, now_seconds: int) -> tuple[Mark, str]:
    if now_seconds < found.begin_seconds:
        return Mark.FAIL, f"it begins to be valid at {to_iso(found.begin_seconds * 1000)}"
    ends = [("its chain", found.expiry_seconds)]
    if found.client_ca_expiry_seconds is not None:
        ends.append(("the clients' authorities", found.client_ca_expiry_seconds))
    whose, end_seconds = min(ends, key=lambda it: it[1])
    left = end_seconds - now_seconds
    if left <= 0:
        age = format_age(-left)
        return Mark.FAIL, f"{whose} expired {age} ago, at {to_iso(end_seconds * 1000)}"
    about = f"{whose} is valid for {format_age(left)}, until {to_iso(end_seconds * 1000)}"
    return Mark.WARN if left < _SECONDS_WARN else Mark.OK, about


def _listed(facts: Mapping[str, Mapping[str, str]], place: str) -> str:
    shown = [f"{name} {it['value']}" for name, it in facts.items() if it["from"] == place]
    return f"{len(shown)} in {place}: {', '.join(shown)}"


def _told(settings: Settings, name: str, source: str) -> dict[str, str]:
    """Return a setting's value, unless that is a secret, and where it comes from."""
    (field,) = (each for each in fields(settings) if each.name == name)
    value = getattr(settings, name)
    shown = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return {
        "value": shown if field.repr else "hidden",
        "from": "the environment" if source.startswith(PREFIX) else source.rpartition(": ")[0],
    }
