"""The gRPC server's side of TLS: the certificates of now for each connection that is made."""

from collections.abc import Callable
from typing import cast

import grpc

from meter.certificates import Certificates, KeptCertificates


def to_credentials(kept: KeptCertificates) -> grpc.ServerCredentials:
    """Return credentials that follow `kept`; with authorities, clients have to show a certificate.

    Connections that stand are left alone: their age bounds them.
    """
    first = kept.current
    # None is an answer too; the stubs do not know.
    follower = cast(
        "Callable[[], grpc.ServerCertificateConfiguration]", _Follower(kept, given=first)
    )
    return grpc.dynamic_ssl_server_credentials(
        _to_configuration(first),
        follower,
        require_client_authentication=first.client_ca is not None,
    )


class _Follower:
    """Asked by gRPC at each handshake, in a thread of its own; it must not wait for a disk."""

    def __init__(self, kept: KeptCertificates, *, given: Certificates) -> None:
        self._kept = kept
        self._given = given

    def __call__(self) -> grpc.ServerCertificateConfiguration | None:
        """Return what is new since it was last asked; None when nothing is."""
        current = self._kept.current
        if current is self._given:
            return None
        self._given = current
        return _to_configuration(current)


def _to_configuration(found: Certificates) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(found.key, found.chain)], root_certificates=found.client_ca
    )
