"""TLS as clients see it: certificates are renewed under a meter, and who shows none stays out."""

import shutil
import socket
import ssl
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
import pytest
from grpc.experimental.session_cache import ssl_session_cache_lru

from cli.connection import connect
from cli.process import CommandError, Exit
from cli.settings import Settings
from tests.authority import Authority, needs_openssl, put
from tests.postgres import Cluster
from tests.running_meter import RunningMeter, running_meter_on
from tests.wire.posting import post
from tests.wire.session import event, opening, rows
from tests.wire.talk import call_of, info_of, wait_until
from tokenworks.meter.v1 import account_service_pb2 as pb
from tokenworks.meter.v1 import account_service_pb2_grpc as pb_grpc
from tokenworks.meter.v1 import meter_service_pb2_grpc

pytestmark = needs_openssl
_CALL_SECONDS_MAX = 20
_HERE = ("DNS:localhost", "IP:127.0.0.1")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The authority of servers and clients, and a stranger's client."""
    made = Authority(tmp_path_factory.mktemp("authority"))
    made.sign("first", *_HERE)
    made.sign("second", *_HERE)
    made.sign("gateway", "URI:spiffe://factory/ns/gateway")
    made.sign("twice", "URI:spiffe://factory/ns/twice", "DNS:Twice.Factory.Example", "IP:10.0.0.1")
    made.sign("command", "DNS:command.example")
    made.sign("nobody", "URI:spiffe://factory/ns/nobody", "DNS:nobody.example")
    return made


@pytest.fixture(scope="module")
def place(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Where the meter's certificate and key lie, which tests renew."""
    folder = tmp_path_factory.mktemp("tls")
    put(authority.paths("first"), (folder / "tls.crt", folder / "tls.key"))
    shutil.copyfile(authority.certificate, folder / "ca.crt")
    return folder / "tls.crt", folder / "tls.key"


@pytest.fixture(scope="module")
def tls_meter(cluster: Cluster, place: tuple[Path, Path]) -> Iterator[RunningMeter]:
    """A meter that asks clients for a certificate, with TLS on its HTTP port too."""
    settings = {
        "tls_certificate": str(place[0]),
        "tls_key": str(place[1]),
        "tls_client_ca": str(place[0].with_name("ca.crt")),
        "http_tls": "true",
    }
    with (
        cluster.database() as url,
        running_meter_on(url, folder=place[0].parent, settings=settings) as running,
    ):
        yield running


def test_call__with_a_certificate(tls_meter: RunningMeter, authority: Authority) -> None:
    """Who shows a certificate of the authority, and sends an API key, is answered."""
    assert _ask(tls_meter, authority, pair="gateway") is None


def test_call__without_a_certificate(tls_meter: RunningMeter, authority: Authority) -> None:
    """Where clients need a certificate an API key alone does not get them in."""
    assert _ask(tls_meter, authority, pair=None) is grpc.StatusCode.UNAVAILABLE


def test_call__a_strangers_certificate(
    tls_meter: RunningMeter, authority: Authority, tmp_path: Path
) -> None:
    """A certificate of another authority is none."""
    stranger = Authority(tmp_path, name="stranger")
    pair = stranger.sign("gateway", "URI:spiffe://factory/ns/gateway")
    assert _ask(tls_meter, authority, pair=pair) is grpc.StatusCode.UNAVAILABLE


def test_call__a_bound_certificate_and_no_key(
    tls_meter: RunningMeter, authority: Authority
) -> None:
    """A certificate that an API key is bound to is that key: what it may, and no more."""
    with _calling(tls_meter, authority, pair="gateway") as gateway:
        key = _bind(tls_meter, authority, "spiffe://factory/ns/gateway")
        listed = gateway.ListApiKeys(pb.ListApiKeysRequest(), timeout=_CALL_SECONDS_MAX).keys
        assert key in listed
        refusal = _refusal(lambda: gateway.ListAccounts(pb.ListAccountsRequest(account="team")))
        assert refusal == ("PERMISSION_DENIED", "SCOPE_MISSING")
        # An API key that is sent counts, and not the certificate.
        bearer = (("authorization", f"Bearer {tls_meter.api_key}"),)
        gateway.ListAccounts(pb.ListAccountsRequest(), metadata=bearer)
        wrong = (("authorization", "Bearer tw_wrong"),)
        refusal = _refusal(lambda: gateway.ListApiKeys(pb.ListApiKeysRequest(), metadata=wrong))
        assert refusal == ("UNAUTHENTICATED", "API_KEY_MALFORMED")
        _revoke(tls_meter, authority, key)
        refusal = _refusal(lambda: gateway.ListApiKeys(pb.ListApiKeysRequest()))
        assert refusal == ("UNAUTHENTICATED", "API_KEY_REVOKED")


def test_call__a_certificate_that_nobody_knows(
    tls_meter: RunningMeter, authority: Authority
) -> None:
    """A certificate of the authority is a way in, not an identity; no certificate is neither."""
    with _calling(tls_meter, authority, pair="nobody") as nobody:
        refusal = _refusal(lambda: nobody.ListAccounts(pb.ListAccountsRequest()))
        assert refusal == ("UNAUTHENTICATED", "CERTIFICATE_UNKNOWN")


def test_call__a_certificate_of_two_keys(tls_meter: RunningMeter, authority: Authority) -> None:
    """Of two keys none is chosen, also when one has been revoked: what is left is not its heir."""
    with _calling(tls_meter, authority, pair="twice") as twice:
        _bind(tls_meter, authority, "spiffe://factory/ns/twice")
        twice.ListApiKeys(pb.ListApiKeysRequest())
        second = _bind(tls_meter, authority, "twice.factory.example")
        for _ in range(2):
            refusal = _refusal(lambda: twice.ListApiKeys(pb.ListApiKeysRequest()))
            assert refusal == ("UNAUTHENTICATED", "CERTIFICATE_AMBIGUOUS")
            _revoke(tls_meter, authority, second)


def test_command__shows_a_certificate(tls_meter: RunningMeter, authority: Authority) -> None:
    """Commands need no API key where one is bound to their certificate, and say what is wrong."""
    certificate, client_key = authority.paths("command")
    settings = Settings(
        server=f"https://{tls_meter.target}",
        ca_certificate=authority.certificate,
        client_certificate=certificate,
        client_key=client_key,
    )
    key = _bind(tls_meter, authority, "command.example")
    with connect(settings=settings) as client:
        assert key in client.accounts.ListApiKeys(pb.ListApiKeysRequest()).keys
    for wrong, words in (
        ({"client_key": authority.paths("gateway")[1]}, "are no pair"),
        ({"server": f"http://{tls_meter.target}"}, "over TLS only"),
        ({"client_certificate": None, "client_key": None}, "no API key is known"),
    ):
        with (
            pytest.raises(CommandError, match=words) as error,
            connect(settings=replace(settings, **wrong)),
        ):
            pass
        assert error.value.exit_code == Exit.USAGE


def test_stream__its_certificates_key_is_revoked(
    tls_meter: RunningMeter, authority: Authority
) -> None:
    """An open stream of a certificate ends with its first message after the revocation."""
    key = _bind(tls_meter, authority, "spiffe://factory/ns/gateway")
    said: SimpleQueue[Any] = SimpleQueue()
    with _channel(tls_meter, authority, pair="gateway") as channel:
        stub = meter_service_pb2_grpc.MeterServiceStub(channel)
        heard = stub.StreamUsage(iter(said.get, None), timeout=_CALL_SECONDS_MAX)
        said.put(opening("gateway"))
        assert next(heard).WhichOneof("message") == "opened"
        _revoke(tls_meter, authority, key)
        said.put(rows(1, event()))
        assert _refusal(lambda: next(heard)) == ("UNAUTHENTICATED", "API_KEY_REVOKED")
        said.put(None)


def test_call__a_certificate_that_runs_out(tls_meter: RunningMeter, authority: Authority) -> None:
    """A certificate counts until it expires: its connection stands, its session is resumed."""
    end = datetime.now(UTC) + timedelta(seconds=2)
    authority.sign_until("brief", "URI:spiffe://factory/ns/brief", end=end)
    bearer = (("authorization", f"Bearer {tls_meter.api_key}"),)
    # As a client keeps them that comes back within two days, which is not looked at again.
    cache = ssl_session_cache_lru(1)  # type: ignore[no-untyped-call]
    options = (("grpc.ssl_session_cache", cache),)
    with _channel(tls_meter, authority, pair="brief", options=options) as channel:
        brief = pb_grpc.AccountServiceStub(channel)
        brief.ListAccounts(pb.ListAccountsRequest(), metadata=bearer)

        def reason() -> str:
            try:
                brief.ListAccounts(pb.ListAccountsRequest(), metadata=bearer)
            except grpc.RpcError as error:
                return info_of(error).reason
            return ""

        wait_until(reason)
        assert reason() == "CERTIFICATE_EXPIRED"
    with _channel(tls_meter, authority, pair="brief", options=options) as channel:
        brief = pb_grpc.AccountServiceStub(channel)
        assert reason() == "CERTIFICATE_EXPIRED"
    assert datetime.now(UTC) >= end.replace(microsecond=0)


def test_certificate__renewed_while_it_runs(
    tls_meter: RunningMeter, authority: Authority, place: tuple[Path, Path]
) -> None:
    """Both ports serve the new certificate without a restart; a broken one changes nothing."""
    served = {"grpc": _served(tls_meter.target), "http": _served(tls_meter.http)}
    assert set(served.values()) == {_der(authority, "first")}
    place[0].write_text("half a certifi")
    wait_until(lambda: "certificate_broken" in tls_meter.log.read_text("utf-8"))
    assert _served(tls_meter.target) == _served(tls_meter.http) == _der(authority, "first")
    put(authority.paths("second"), place)
    second = _der(authority, "second")
    wait_until(lambda: _served(tls_meter.target) == second)
    wait_until(lambda: _served(tls_meter.http) == second)
    assert _ask(tls_meter, authority, pair="gateway") is None


@pytest.mark.stacks
def test_certificate__another_authority(
    tls_meter: RunningMeter, authority: Authority, place: tuple[Path, Path], tmp_path: Path
) -> None:
    """Two authorities are believed while both are in the file; who signed for none is out."""
    stranger = Authority(tmp_path, name="stranger")
    pair = stranger.sign("gateway", "URI:spiffe://factory/ns/gateway")
    kept = place[0].with_name("ca.crt")
    before = kept.read_bytes()
    try:
        kept.write_bytes(before + stranger.certificate.read_bytes())
        wait_until(lambda: _ask(tls_meter, authority, pair=pair) is None)
        assert _ask(tls_meter, authority, pair="gateway") is None
        kept.write_bytes(stranger.certificate.read_bytes())
        wait_until(lambda: _ask(tls_meter, authority, pair="gateway") is not None)
        assert _ask(tls_meter, authority, pair=pair) is None
    finally:
        kept.write_bytes(before)
        wait_until(lambda: _ask(tls_meter, authority, pair="gateway") is None)


def test_http__over_tls(tls_meter: RunningMeter, authority: Authority) -> None:
    """Metrics and readiness come over TLS, without a client's certificate, and say the expiry."""
    context = ssl.create_default_context(cafile=authority.certificate)
    for path, words in (
        ("readyz", b"OK"),
        ("metrics", b'tokenworks_certificate_expiry_timestamp_seconds{certificate="client_ca"} 1'),
    ):
        url = f"https://{tls_meter.http}/{path}"
        with urllib.request.urlopen(url, context=context, timeout=_CALL_SECONDS_MAX) as answer:
            assert words in answer.read()


def test_report__by_http_with_a_certificate(tls_meter: RunningMeter, authority: Authority) -> None:
    """Where clients need a certificate reports by HTTP need one too, and it may be the key."""
    assert _report(tls_meter, authority, pair=None) == (401, "CERTIFICATE_UNKNOWN")
    assert _report(tls_meter, authority, pair="gateway") == (204, "")
    unknown = _report(tls_meter, authority, pair="nobody", api_key="")
    assert unknown == (401, "CERTIFICATE_UNKNOWN")
    key = _bind(tls_meter, authority, "spiffe://factory/ns/nobody")
    assert _report(tls_meter, authority, pair="nobody", api_key="") == (204, "")
    _revoke(tls_meter, authority, key)
    revoked = _report(tls_meter, authority, pair="nobody", api_key="")
    assert revoked == (401, "API_KEY_REVOKED")


def test_http__plain_to_the_tls_port(tls_meter: RunningMeter) -> None:
    """Who does not speak TLS gets no answer and holds up nobody, however long it says nothing."""
    host, _, port = tls_meter.http.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=_CALL_SECONDS_MAX) as silent:
        with socket.create_connection((host, int(port)), timeout=_CALL_SECONDS_MAX) as plain:
            plain.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            assert b"tokenworks" not in plain.recv(1000)
        assert _served(tls_meter.http)
        silent.close()
    assert "Traceback" not in tls_meter.log.read_text("utf-8")


def test_start__with_half_a_pair(cluster: Cluster, authority: Authority, tmp_path: Path) -> None:
    """A key that is another certificate's keeps the meter from starting, in plain words."""
    settings = {
        "tls_certificate": str(authority.paths("first")[0]),
        "tls_key": str(authority.paths("second")[1]),
    }
    with (
        cluster.database() as url,
        pytest.raises(AssertionError, match="are no pair of a certificate and its key"),
        running_meter_on(url, folder=tmp_path, settings=settings),
    ):
        pass


def _ask(
    running: RunningMeter, authority: Authority, *, pair: str | tuple[Path, Path] | None
) -> grpc.StatusCode | None:
    """Ask for the accounts with an API key, and the certificate of this name; how it failed."""
    with _calling(running, authority, pair=pair) as stub:
        try:
            stub.ListAccounts(
                pb.ListAccountsRequest(),
                metadata=(("authorization", f"Bearer {running.api_key}"),),
                timeout=_CALL_SECONDS_MAX,
            )
        except grpc.RpcError as error:
            return call_of(error).code()
    return None


def _channel(
    running: RunningMeter,
    authority: Authority,
    *,
    pair: str | tuple[Path, Path] | None,
    options: Sequence[tuple[str, Any]] = (),
) -> grpc.Channel:
    """Open a channel that shows this certificate, or none."""
    shown: tuple[bytes, bytes] | tuple[()] = ()
    if pair is not None:
        certificate, key = authority.paths(pair) if isinstance(pair, str) else pair
        shown = (key.read_bytes(), certificate.read_bytes())
    credentials = grpc.ssl_channel_credentials(authority.certificate.read_bytes(), *shown)
    options = [*options, ("grpc.use_local_subchannel_pool", 1)]
    # By name: sessions are kept for names alone.
    target = running.target.replace("127.0.0.1", "localhost")
    return grpc.secure_channel(target, credentials, options=options)


@contextmanager
def _calling(
    running: RunningMeter, authority: Authority, *, pair: str | tuple[Path, Path] | None
) -> Iterator[pb_grpc.AccountServiceStub]:
    """Call the service of accounts with this certificate, and no API key but one that is given."""
    with _channel(running, authority, pair=pair) as channel:
        yield pb_grpc.AccountServiceStub(channel)


def _bind(running: RunningMeter, authority: Authority, name: str) -> pb.ApiKey:
    """Bind a key that may report, and is admin, to a name."""
    roles = (pb.ROLE_PRODUCER, pb.ROLE_ADMIN)
    with _calling(running, authority, pair="nobody") as stub:
        return stub.CreateApiKey(
            pb.CreateApiKeyRequest(
                scopes=[pb.Scope(role=role) for role in roles], certificate_name=name
            ),
            metadata=(("authorization", f"Bearer {running.api_key}"),),
        ).key


def _revoke(running: RunningMeter, authority: Authority, key: pb.ApiKey) -> None:
    with _calling(running, authority, pair="nobody") as stub:
        stub.RevokeApiKey(
            pb.RevokeApiKeyRequest(key_id=key.key_id),
            metadata=(("authorization", f"Bearer {running.api_key}"),),
        )


def _refusal(call: Callable[[], object]) -> tuple[str, str]:
    """Make a call that must fail; its code and reason."""
    with pytest.raises(grpc.RpcError) as error:
        call()
    return call_of(error.value).code().name, info_of(error.value).reason


def _served(address: str) -> bytes:
    """Return the certificate that a port shows, as DER."""
    host, _, port = address.rpartition(":")
    return ssl.PEM_cert_to_DER_cert(
        ssl.get_server_certificate((host, int(port)), timeout=_CALL_SECONDS_MAX)
    )


def _der(authority: Authority, name: str) -> bytes:
    return ssl.PEM_cert_to_DER_cert(authority.paths(name)[0].read_text("ascii"))


def _report(
    running: RunningMeter, authority: Authority, *, pair: str | None, api_key: str | None = None
) -> tuple[int, str]:
    """Bring an empty report by HTTP with this certificate; its status, and the error's reason."""
    context = ssl.create_default_context(cafile=authority.certificate)
    if pair is not None:
        context.load_cert_chain(*authority.paths(pair))
    answer = post(
        running,
        "/api/v1/events",
        b"[]",
        content_type="application/cloudevents-batch+json",
        api_key=api_key,
        context=context,
    )
    return answer.status, answer.reason if answer.body else ""
