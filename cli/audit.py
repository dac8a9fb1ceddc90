"""`tokenworks audit list`: who changed what."""

import json
import re
from collections.abc import Iterator
from typing import Final

import click
from google.protobuf import json_format

from cli.accounts import format_time, print_table
from cli.connection import Client, client_command, find_now_ms
from cli.usage.span import check_time, to_ms
from tokenworks.meter.v1 import audit_service_pb2 as pb

_PAGE_SIZE: Final = 1_000
# In a table a SHA-256 is told apart by its begin; JSON has all of it.
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_DIGITS_SHOWN: Final = 12


@click.group("audit")
def audit() -> None:
    """Who changed accounts, keys, terms, months and documents."""


@audit.command("list", short_help="Changes, the newest first.")
@click.option("--since", callback=check_time, metavar="TIME", help="Only those from here on.")
@click.option("--until", callback=check_time, metavar="TIME", help="Only those before here.")
@click.option(
    "--action",
    default="",
    help="Only those of an action, such as contract.set, or of all of a kind: contract.",
)
@click.option("--subject", default="", help="Only those to this: an id, a name, a number.")
@click.option("--key", "key_id", default="", metavar="KEY", help="Only those by this API key.")
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    metavar="N",
    help="List so many at most.",
)
@client_command
def list_entries(
    client: Client,
    *,
    since: str | None,
    until: str | None,
    action: str,
    subject: str,
    key_id: str,
    limit: int,
) -> None:
    """List changes, the newest first: when, by which API key, what was done to what.

    `job` stands for a job on the database, `meter` for the meter itself. Times are 2026-11-01 or
    2026-11-01T09:15 in UTC, or 12h ago. Needs an API key that may read the whole installation.
    """
    request = pb.ListAuditEntriesRequest(
        action=action, subject=subject, key_id=key_id, page_size=min(limit + 1, _PAGE_SIZE)
    )
    if since is not None or until is not None:
        now_ms = find_now_ms(client)
        if since is not None:
            request.start_time.FromMilliseconds(to_ms(since, now_ms=now_ms))
        if until is not None:
            request.end_time.FromMilliseconds(to_ms(until, now_ms=now_ms))
    found: list[pb.AuditEntry] = []
    more = False
    for entry in _list_all(client, request):
        more = len(found) == limit
        if more:
            break
        found.append(entry)
    if client.as_json:
        click.echo(json.dumps([_to_json(each) for each in found], indent=2))
    elif found:
        print_table(["time", "by", "action", "subject", "detail"], map(_to_row, found))
    else:
        click.echo("Nothing was changed.")
    if more:
        click.echo(f"There are more than {limit:,}: --limit shows more.", err=True)


def _list_all(client: Client, request: pb.ListAuditEntriesRequest) -> Iterator[pb.AuditEntry]:
    while True:
        answer = client.audit.ListAuditEntries(request)
        yield from answer.entries
        if not answer.next_page_token:
            return
        request.page_token = answer.next_page_token


def _to_row(entry: pb.AuditEntry) -> list[str]:
    detail = ", ".join(
        f"{name} {_shown(value)}"
        for name, value in _detail(entry).items()
        if value not in ("", [], {})
    )
    return [format_time(entry.time), entry.key_id, entry.action, entry.subject, detail or "-"]


def _shown(value: object) -> str:
    if not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return f"{value[:_DIGITS_SHOWN]}…" if _HASH.fullmatch(value) else value


def _to_json(entry: pb.AuditEntry) -> dict[str, object]:
    return {
        "entry_id": entry.entry_id,
        "time": entry.time.ToJsonString(),
        "key_id": entry.key_id,
        "action": entry.action,
        "subject": entry.subject,
        "detail": _detail(entry),
    }


def _detail(entry: pb.AuditEntry) -> dict[str, object]:
    # The wire keeps no order among them.
    detail = json_format.MessageToDict(entry.detail)
    return {name: _whole(detail[name]) for name in sorted(detail)}


def _whole(value: object) -> object:
    """Return numbers as they were written: the wire has them all with a point."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {name: _whole(it) for name, it in value.items()}
    return list(map(_whole, value)) if isinstance(value, list) else value
