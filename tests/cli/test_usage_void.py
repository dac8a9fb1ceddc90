"""`tokenworks usage void` and `usage corrections`: the real commands against a real meter."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.process import Exit
from tests.acceptance.counted import wait_until_counted
from tests.billing.town import book_toml, contract_toml
from tests.cli.shell import Shell, shell_of
from tests.postgres import Cluster
from tests.running_meter import RunningMeter, running_meter_on
from tests.wire.session import Session, event, opening, rows


@pytest.fixture
def shell(running_meter: RunningMeter) -> Shell:
    """A shell; there are acme, acme/team and other."""
    return shell_of(running_meter)


def written(folder: Path, content: object) -> str:
    """Write what replaces an event, and return the file's path."""
    path = folder / "event.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return str(path)


def test_void__by_id(shell: Shell, running_meter: RunningMeter) -> None:
    """A voided event is in no sum and no row; who, when and why are listed; again is the same."""
    kept, wrong = shell.record("--input", "3"), shell.record("--output", "70", tier="free")
    assert kept != wrong
    shell.show("acme", requests=2)
    shown = shell.run("usage", "void", wrong, "--reason", "reported twice").stdout
    assert "llama-4 free, 70 output" in shown
    assert "reported twice" in shown
    wait_until_counted(running_meter.database_url)
    (row,) = shell.show("acme", requests=1)
    assert row["tokens"] == {"input": 3}
    told = shell.run_json("usage", "void", wrong, "--reason", "reported twice")
    assert shell.run_json("usage", "corrections") == [told]
    assert (told["after"], told["before"]["tokens"]) == (None, {"output": 70})
    assert told["key_id"].startswith("key_")
    reader = shell.run_json("keys", "create", "acme", "--role", "reader")["secret"]
    words = ("usage", "corrections", "--api-key", reader)
    assert "SCOPE_MISSING" in shell.run(*words, code=Exit.REFUSED).stderr
    key = shell.run_json("keys", "create", "/", "--role", "operator")["secret"]
    done = shell.run("usage", "void", kept, "--reason", "r", "--api-key", key)
    assert "whether an invoice was issued for that time is not known" in done.stderr
    refused = shell.run("usage", "void", wrong, "--reason", "another", code=Exit.REFUSED)
    assert "CORRECTION_REFUSED" in refused.stderr
    assert "is void since" in refused.stderr
    assert "reported twice" in shell.run("usage", "corrections").stdout


def test_void__replaced_by_a_file(
    shell: Shell, running_meter: RunningMeter, tmp_path: Path
) -> None:
    """What a correction printed is what the next one takes: changed, it counts in its place."""
    wrong = shell.record("--input", "3", "--finish", "cancelled", "--request-id", "r-1")
    void = ("usage", "void", wrong, "--reason", "wrong tier", "--replace")
    first: dict[str, Any] = {
        "account": "acme",
        "model": "llama-4",
        "tier": "free",
        "end_time": "2026-01-01T00:00:00Z",
        "tokens": {"output": 5},
    }
    told = shell.run_json(*void, written(tmp_path, first))
    assert (told["before"]["finish"], told["before"]["request_id"]) == ("cancelled", "r-1")
    account = told["before"]["account"]
    named = {**first, "account": account, "finish": "completed", "mode": "online"}
    assert told["after"] == {**told["after"], **named}
    second = {**told["after"], "tokens": {"output": 6}, "quality": "estimated"}
    wait_until_counted(running_meter.database_url)
    (row,) = shell.show("acme", "--since", "2025-12-31", requests=1)
    assert row["tokens"] == {"output": 5}
    again = shell.run_json(*void, written(tmp_path, second))
    assert again["before"] == told["after"]
    assert again["after"] == second
    limited = shell.run("usage", "corrections", "--limit", "1")
    assert "more than 1" in limited.stderr
    assert "free, 5 output" in limited.stdout
    assert "free, 6 output" not in limited.stdout


def test_void__by_place(shell: Shell, running_meter: RunningMeter) -> None:
    """An event without an id is named by producer, batch and index; the account says whose key."""
    account = shell.run_json("accounts", "list")[0]["account"]
    session = Session(running_meter)
    session.exchange(opening("gpu-1"), rows(7, *(event(account, event_id="") for _ in range(2))))
    session.exchange(opening("gpu-1"), rows(1, *(event(account, event_id="") for _ in range(2))))
    void = ("usage", "void", "--reason", "r", "--place")
    told = shell.run_json(*void, "gpu-1:1:1", "--since", "1h", "--until", "2100-01-01")
    assert (told["producer"], told["sequence"], told["index"]) == ("gpu-1", 1, 1)
    said = shell.run(*void, "gpu-1:1:0", "--reporter", "acme", code=Exit.REFUSED).stderr
    assert "the installation" in said
    assert "EVENT_NOT_FOUND" in shell.run(*void, "gpu-1:1:2", code=Exit.FAILED).stderr


WRONG_FILES: list[tuple[Any, str]] = [
    ("{", "no JSON"),
    ([], "no JSON object"),
    ({"acount": "acme"}, "'acount' is none of"),
    ({"account": "acme", "model": "m", "tier": "high"}, "end_time is missing"),
    ({"finish": "done"}, "finish 'done' is none of"),
    ({"tokens": 5}, "tokens is no object"),
    ({"tokens": {"in": 5}}, "token class 'in' is none of"),
    ({"tokens": {"input": "many"}}, "input"),
    ({"end_time": "yesterday"}, "end_time"),
]


def test_void__of_wrong_words(shell: Shell, tmp_path: Path) -> None:
    """What is wrong is said before anything is sent: exit code 2."""
    whole = {"account": "a", "model": "m", "tier": "t", "end_time": "2026-01-01T00:00:00Z"}
    void = ("usage", "void", "e", "--reason", "r")
    for content, said in WRONG_FILES:
        is_part = isinstance(content, dict) and "acount" not in content and "model" not in content
        path = written(tmp_path, {**whole, **content} if is_part else content)
        assert said in shell.run(*void, "--replace", path, code=Exit.USAGE).stderr
    (tmp_path / "bytes").write_bytes(b"\xff")
    shell.run(*void, "--replace", str(tmp_path / "bytes"), code=Exit.USAGE)
    shell.run(*void, "--replace", str(tmp_path / "none"), code=Exit.USAGE)
    shell.run(*void, "--place", "p:1:0", code=Exit.USAGE)
    shell.run(*void, "--since", "never", code=Exit.USAGE)
    shell.run("usage", "void", "--reason", "r", code=Exit.USAGE)
    shell.run("usage", "void", "e", code=Exit.USAGE)
    for place in ("p:1", "p:x:0", ":1:0", "p:0:0"):
        shell.run("usage", "void", "--place", place, "--reason", "r", code=Exit.USAGE)
    assert shell.run("usage", "corrections").stdout == "Nothing was corrected.\n"


@pytest.fixture
def sandbox(cluster: Cluster, tmp_path: Path) -> Iterator[RunningMeter]:
    """A meter that lives in October."""
    settings = {"sandbox_clock": "2026-10-10T00:00:00Z"}
    with (
        cluster.database() as url,
        running_meter_on(url, folder=tmp_path, settings=settings) as running,
    ):
        yield running


def test_void__of_an_invoiced_month(sandbox: RunningMeter, tmp_path: Path) -> None:
    """The invoice is named and stays as it is, byte by byte: late usage, as what is released is."""
    shell = Shell(sandbox.target, sandbox.api_key)
    shell.run("accounts", "create", "acme", "--id", "acme")
    for name, text, words in (
        ("book.toml", book_toml(), ("prices", "import")),
        ("contract.toml", contract_toml(), ("contracts", "set")),
    ):
        (tmp_path / name).write_text(text, "utf-8")
        shell.run(*words, str(tmp_path / name))
    events = [shell.record("--input", str(count)) for count in (1_000_000, 2_000_000, 5)]
    aside = ("--account", "id:late", "--model", "llama-4", "--tier", "high", "--input", "7")
    shell.run("usage", "record", *aside, code=Exit.REFUSED)
    early = shell.run("usage", "void", events[2], "--reason", "r")
    assert "invoice" not in early.stderr
    wait_until_counted(sandbox.database_url)
    shell.run("billing", "clock", "--to", "2026-11-01T08:00:00Z")
    assert "9.00 USD" in shell.run("billing", "close", "2026-10", "--early").stdout
    (number,) = [it["number"] for it in shell.run_json("invoices", "list")]
    before = shell.run("invoices", "show", number, "--format", "json").stdout
    late = shell.run("usage", "void", events[0], "--reason", "r")
    assert f"invoice {number} was issued for that time and stays as it is" in late.stderr
    moved = {
        "account": "acme",
        "model": "llama-4",
        "tier": "high",
        "end_time": "2026-11-01T07:00:00Z",
        "tokens": {"input": 3_000_000},
    }
    path = written(tmp_path, moved)
    late = shell.run("usage", "void", events[1], "--reason", "r", "--replace", path)
    assert late.stderr.count(number) == 1
    shell.run("accounts", "create", "acme/late", "--id", "late")
    (entry,) = shell.run_json("usage", "quarantine", "list")
    shell.run("usage", "quarantine", "release", str(entry["quarantine_id"]))
    wait_until_counted(sandbox.database_url)
    october = ("--since", "2026-10-01", "--until", "2026-11-01")
    (row,) = shell.show("acme", *october, requests=1)
    assert row["tokens"] == {"input": 7}
    assert shell.run("invoices", "show", number, "--format", "json").stdout == before
    assert "9.00" in shell.run("invoices", "preview", "acme", "--month", "2026-11").stdout
    assert "0 drafted" not in shell.run("billing", "close", "2026-10", "--early").stdout
    assert len(shell.run_json("invoices", "list")) == 1
