"""What an API key can be bound to, and where the bound one lies."""

import pytest

from meter.domain.certificate_name import (
    bind_key,
    check_certificate_name,
    hash_certificate_name,
    unbound_hash,
)
from meter.domain.credential import hash_api_key
from meter.domain.errors import InvalidArgument

PEPPER = b"p" * 32


@pytest.mark.parametrize(
    "name",
    [
        "spiffe://factory/ns/gateway",
        "spiffe://factory.example/ns/a_b/sa/gw-1",
        "https://gateway.example/",
        "gateway",
        "gateway-1.factory.example",
        "1.example",
        "x" * 63 + ".example",
        "spiffe://f/" + "x" * 2_037,
    ],
)
def test_check_certificate_name__names(name: str) -> None:
    """URIs and DNS names are names of certificates."""
    check_certificate_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "*.factory.example",
        "Gateway.example",
        "gateway.example.",
        "-gateway.example",
        "gateway..example",
        "gate way",
        "spiffe:factory",
        "spiffe://",
        "SPIFFE://factory/ns",
        "spiffe://factory/n s",
        "spiffe://factory/\n",
        "spiffe://fäctory/ns",
        "10.0.0.1/8",
        "x" * 64 + ".example",
        ("x" * 60 + ".") * 4 + "x" * 10,
        "spiffe://f/" + "x" * 2_038,
    ],
)
def test_check_certificate_name__no_names(name: str) -> None:
    """What stands for many, what no certificate has, and what is too long is refused by field."""
    with pytest.raises(InvalidArgument) as refusal:
        check_certificate_name(name)
    assert refusal.value.metadata["field"] == "certificate_name"


def test_bind_key__has_no_text() -> None:
    """A bound key is found by its name under the pepper, and by no text that anybody can send."""
    name = "spiffe://factory/ns/gateway"
    key = bind_key(bytes, name=name, pepper=PEPPER)
    assert (key.text, key.prefix) == ("", "")
    assert key.secret_hash == hash_certificate_name(name, pepper=PEPPER)
    others = {
        hash_certificate_name(name, pepper=b"q" * 32),
        hash_certificate_name(name + "2", pepper=PEPPER),
        hash_api_key(name, pepper=PEPPER),
        unbound_hash(key.key_id),
    }
    assert key.secret_hash not in others
    assert len(others) == 4
