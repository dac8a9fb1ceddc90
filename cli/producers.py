"""`tokenworks producers list|register|retire`."""

import json
from collections.abc import Iterator
from typing import Final

import click

from cli.accounts import format_time, print_table, resolve
from cli.connection import Client, client_command
from tokenworks.meter.v1 import producer_service_pb2 as pb
from tokenworks.meter.v1.producer_service_pb2_grpc import ProducerServiceStub

PAGE_SIZE: Final = 1000
# The wire's numbers, by the names that options and JSON have.
STATES: Final = {
    name.removeprefix("PRODUCER_STATE_").lower(): number
    for name, number in pb.ProducerState.items()
    if number
}
_NAMES: Final = {number: name for name, number in STATES.items()}

_account_option = click.option(
    "--account",
    help="The account that owns the producer's API key; without it, the installation's own keys.",
)


@click.group("producers")
def producers() -> None:
    """Who reports, who has fallen silent, and what is missing."""


@producers.command("list", short_help="All producers, with what is wrong with each.")
@click.option("--account", help="Only those of this account's API keys.")
@click.option("--state", type=click.Choice(list(STATES)), help="Only those in this state.")
@click.option("--silent", is_flag=True, help="Only those that are silent.")
@client_command
def list_producers(client: Client, *, account: str | None, state: str | None, silent: bool) -> None:
    """List producers by account and name.

    A silent producer is expected and has not been heard for longer than the server allows: what it
    did since is unknown, not zero. Its backlog waits with it; missing batches are lost.
    """
    request = pb.ListProducersRequest(
        account=resolve(client.accounts, account) if account else "",
        is_silent=silent,
        page_size=PAGE_SIZE,
    )
    if state is not None:
        request.state = pb.ProducerState.Name(STATES[state])  # type: ignore[assignment]
    found = _list_all(client.producers, request)
    if client.as_json:
        click.echo(json.dumps(list(map(producer_to_json, found)), indent=2))
        return
    print_table(
        ["account", "producer", "state", "last heard", "recorded", "backlog", "missing"],
        (_to_row(each) for each in found),
    )


@producers.command("register")
@click.argument("producer")
@_account_option
@click.option(
    "--edge",
    is_flag=True,
    help="It runs on machines that come and go: the close of a month does not wait for it.",
)
@client_command
def register(client: Client, *, producer: str, account: str | None, edge: bool) -> None:
    """Announce PRODUCER, so that its silence is seen even if it never comes.

    One that reports already stays as it is, but for --edge, which is what was said last.
    """
    request = pb.RegisterProducerRequest(
        account=resolve(client.accounts, account) if account else "", producer=producer, edge=edge
    )
    _print_producer(client, client.producers.RegisterProducer(request).producer)


@producers.command("retire")
@click.argument("producer")
@_account_option
@client_command
def retire(client: Client, *, producer: str, account: str | None) -> None:
    """Say that PRODUCER will not report any more: its silence is no outage.

    One that ends in good order is retired by itself.
    """
    request = pb.RetireProducerRequest(
        account=resolve(client.accounts, account) if account else "", producer=producer
    )
    _print_producer(client, client.producers.RetireProducer(request).producer)


def producer_to_json(producer: pb.Producer) -> dict[str, object]:
    """Return the producer as JSON has it; `seen_time` is null for one that was never heard."""
    return {
        "account": producer.account,
        "producer": producer.producer,
        "state": _state(producer),
        "is_silent": producer.is_silent,
        "seen_time": producer.seen_time.ToJsonString() if producer.HasField("seen_time") else None,
        "recorded_sequence": producer.recorded_sequence,
        "announced_sequence": producer.announced_sequence,
        "missing_batch_count": producer.missing_batch_count,
        "gaps": [
            {
                "first_sequence": gap.first_sequence,
                "last_sequence": gap.last_sequence,
                "found_time": gap.found_time.ToJsonString(),
            }
            for gap in producer.gaps
        ],
        "key_id": producer.key_id,
        "create_time": producer.create_time.ToJsonString(),
        "edge": producer.edge,
    }


def _print_producer(client: Client, producer: pb.Producer) -> None:
    if client.as_json:
        click.echo(json.dumps(producer_to_json(producer), indent=2))
        return
    facts = {
        "producer": producer.producer,
        "account": producer.account or "-",
        "state": _shown_state(producer),
        "heard": _heard(producer),
        "recorded": str(producer.recorded_sequence),
    }
    for name, value in facts.items():
        click.echo(f"{name:<8} {value}")


def _to_row(producer: pb.Producer) -> list[str]:
    return [
        producer.account or "-",
        producer.producer,
        _shown_state(producer),
        _heard(producer),
        str(producer.recorded_sequence),
        str(producer.announced_sequence - producer.recorded_sequence),
        str(producer.missing_batch_count),
    ]


def _heard(producer: pb.Producer) -> str:
    return format_time(producer.seen_time) if producer.HasField("seen_time") else "never"


def _shown_state(producer: pb.Producer) -> str:
    words = [_state(producer)]
    if producer.edge:
        words.append("edge")
    if producer.is_silent:
        words.append("SILENT")
    return ", ".join(words)


def _state(producer: pb.Producer) -> str:
    return _NAMES.get(producer.state, str(producer.state))


def _list_all(stub: ProducerServiceStub, request: pb.ListProducersRequest) -> Iterator[pb.Producer]:
    while True:
        answer = stub.ListProducers(request)
        yield from answer.producers
        if not answer.next_page_token:
            return
        request.page_token = answer.next_page_token
