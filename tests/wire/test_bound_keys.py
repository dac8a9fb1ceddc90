"""API keys that are bound to a certificate's name: made, listed, ended, bound again."""

import grpc
import pytest

from tests.wire.account_server import AccountServer, Caller
from tokenworks.meter.v1 import account_service_pb2 as pb

GATEWAY = "spiffe://factory/ns/gateway"


def bind(owner: str = "team", *, name: str = GATEWAY) -> pb.CreateApiKeyRequest:
    """Return the request for a key of a producer."""
    scope = pb.Scope(role=pb.ROLE_PRODUCER, account=owner)
    return pb.CreateApiKeyRequest(account=owner, scopes=[scope], certificate_name=name)


def test_create_api_key__bound_to_a_certificate(
    account_server: AccountServer, admin: Caller
) -> None:
    """Such a key has no secret; it is listed by its name, and the audit log tells to what."""
    made = admin.call("CreateApiKey", bind())
    assert (made.secret, made.key.prefix, made.key.certificate_name) == ("", "", GATEWAY)
    listed = admin.call("ListApiKeys", pb.ListApiKeysRequest(account="team")).keys
    assert list(listed) == [made.key]
    kept = account_server.store.load().credentials
    assert kept == account_server.registry.snapshot.credentials


def test_create_api_key__a_name_is_bound_once(admin: Caller) -> None:
    """While a key goes on no other is bound to its name; once it has ended, another can be."""
    first = admin.call("CreateApiKey", bind()).key
    refusal = admin.refusal("CreateApiKey", bind("lab"))
    assert (refusal.code, refusal.reason) == (
        grpc.StatusCode.ALREADY_EXISTS,
        "CERTIFICATE_BOUND",
    )
    assert refusal.metadata == {"key_id": first.key_id}
    admin.call("RevokeApiKey", pb.RevokeApiKeyRequest(key_id=first.key_id))
    second = admin.call("CreateApiKey", bind("lab")).key
    listed = admin.call("ListApiKeys", pb.ListApiKeysRequest()).keys
    names = {key.key_id: key.certificate_name for key in listed}
    assert (names[first.key_id], names[second.key_id]) == ("", GATEWAY)


def test_create_api_key__a_name_that_is_none(admin: Caller) -> None:
    """What stands for many certificates is refused."""
    refusal = admin.refusal("CreateApiKey", bind(name="*.factory.example"))
    assert (refusal.reason, refusal.metadata["field"]) == ("ARGUMENT_INVALID", "certificate_name")


@pytest.mark.parametrize("owner", ["team", "agent"])
def test_create_api_key__names_are_the_installations(lead: Caller, owner: str) -> None:
    """Who is admin of a part binds no name: it could be that of another's gateway."""
    lead.create_key(owner, (pb.ROLE_PRODUCER, owner))
    assert lead.refusal("CreateApiKey", bind(owner)).reason == "SCOPE_MISSING"


def test_rotate_api_key__bound_to_a_certificate(admin: Caller) -> None:
    """There is no secret to renew: the certificate is what is renewed."""
    made = admin.call("CreateApiKey", bind())
    refusal = admin.refusal("RotateApiKey", pb.RotateApiKeyRequest(key_id=made.key.key_id))
    assert (refusal.code, refusal.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "ROTATION_REFUSED",
    )
