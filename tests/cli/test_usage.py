"""`tokenworks usage show|record`: the real command against a real meter."""

from pathlib import Path

import pytest

from cli.process import Exit
from cli.usage.query import GROUPS, TOKEN_CLASSES
from cli.usage.span import to_span
from tests.cli.shell import Shell, shell_of, to_iso
from tests.postgres import Cluster
from tests.running_meter import RunningMeter, running_meter_on
from tokenworks.client.clock import time_ns

INTERVAL_MS = 900_000


@pytest.fixture
def shell(running_meter: RunningMeter) -> Shell:
    """A shell; there are acme, acme/team and other."""
    return shell_of(running_meter)


@pytest.fixture
def lonely_shell() -> Shell:
    """A shell whose meter does not run: what it sends ends as unreachable."""
    return Shell("127.0.0.1:1", "none")


def test_record__then_show(shell: Shell) -> None:
    """What was recorded by hand is in the table: its classes, requests and total."""
    words = ("--account", "acme", "--model", "llama-4", "--tier", "high")
    told = shell.run_process(
        "usage", "record", *words, "--input", "1000812", "--output", "344"
    ).stdout
    assert "RECORDED" in told
    assert "1,000,812 input, 344 output" in told
    assert "tokenworks usage show acme --since 1h" in told
    shell.record("--cache-read", "4096", tier="free")
    shell.show("acme", requests=2)
    shown = shell.run_process("usage", "show", "acme", "--since", "1h").stdout
    table = [line.split() for line in shown.splitlines() if line.strip(" ─")]
    assert table[1:5] == [
        ["model", "tier", "input", "cache", "read", "output", "requests"],
        ["llama-4", "free", "0", "4,096", "0", "1"],
        ["llama-4", "high", "1,000,812", "0", "344", "1"],
        ["total", "1,000,812", "4,096", "344", "2"],
    ]
    assert table[0][:3] == ["usage", "of", "acme,"]
    assert table[5][:2] == ["counted", "until"]


def test_record__each_token_class(shell: Shell) -> None:
    """Each token class has an option, and comes back as the class that it is."""
    counts = {name: place + 1 for place, name in enumerate(TOKEN_CLASSES.values())}
    options = [(f"--{name.replace('_', '-')}", str(count)) for name, count in counts.items()]
    shell.record(*(word for option in options for word in option))
    (row,) = shell.show("acme", requests=1)
    assert row["tokens"] == counts


def test_record__details(shell: Shell) -> None:
    """What an event says of its request is what usage is split by; only some was delivered."""
    places = ("--served-model", "llama-4-fp8", "--region", "eu-1", "--pool", "gb300")
    how = ("--mode", "batch", "--finish", "cancelled", "--quality", "partial")
    shell.record("--input", "40000", "--output", "7", *places, *how, "--duration-ms", "12")
    (row,) = shell.show("--by", "account,served_model,mode,region,band", requests=1)
    assert row["handle"] == "acme"
    assert [row[name] for name in ("served_model", "mode", "region", "band")] == [
        "llama-4-fp8",
        "batch",
        "eu-1",
        "<64k",
    ]
    sums = ("unfinished_count", "delivered_output_count", "estimated_count")
    assert [row[name] for name in sums] == [1, 0, 40_007]
    shown = shell.run("usage", "show").stdout
    assert "1 of 1 requests were cancelled or failed" in shown
    assert "40,007 tokens are partial or estimated counts" in shown


def test_record__twice_by_one_id(shell: Shell) -> None:
    """The same event again is a duplicate and no fault; another one by its id is a conflict."""
    words = ["--account", "acme", "--model", "m", "--tier", "high"]
    words += ["--event-id", "order-66", "--end-time", "2h"]
    end_time = to_iso(time_ns() // 1_000_000 - INTERVAL_MS)
    words[-1] = end_time
    assert shell.run_json("usage", "record", *words, "--input", "5")["outcome"] == "RECORDED"
    assert shell.run_json("usage", "record", *words, "--input", "5")["outcome"] == "DUPLICATE"
    changed = shell.run("usage", "record", *words, "--input", "6", code=Exit.REFUSED)
    assert "CONFLICT" in changed.stdout
    (row,) = shell.show(requests=1)
    assert row["tokens"] == {"input": 5}


def test_record__of_unknown_tier(shell: Shell) -> None:
    """What is set aside ends with the exit code of a refusal, and says where it is kept."""
    words = ("--account", "acme", "--model", "m", "--tier", "hihg", "--input", "5")
    result = shell.run("usage", "record", *words, code=Exit.REFUSED)
    assert "TIER_UNKNOWN" in result.stderr
    assert "tokenworks usage quarantine list" in result.stderr
    (entry,) = shell.run_json("usage", "quarantine", "list")
    assert (entry["outcome"], entry["state"]) == ("TIER_UNKNOWN", "held")
    assert entry["event"]["tokens"] == {"input": 5}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "at least one count"),
        (("--input", "-1"), "-1 is not 0 to 1,000,000,000"),
        (("--output", "1000000001"), "is not 0 to 1,000,000,000"),
        (("--input", "1", "--attempt", "1001"), "is not 0 to 1,000"),
        (("--input", "1", "--end-time", "soon"), "soon is no time"),
        (("--input", "1", "--finish", "exploded"), "exploded"),
    ],
)
def test_record__wrong_options(lonely_shell: Shell, words: tuple[str, ...], said: str) -> None:
    """What no event can be is refused before anything is sent."""
    event = ("--account", "acme", "--model", "m", "--tier", "high", *words)
    assert said in lonely_shell.run("usage", "record", *event, code=Exit.USAGE).stderr


def test_record__database_away(private_cluster: Cluster, tmp_path: Path) -> None:
    """When it is not known whether it was recorded, the command says how to repeat it safely."""
    words = ("--account", "id:acme", "--model", "m", "--tier", "high", "--input", "5")
    with private_cluster.database() as url:
        with running_meter_on(url, folder=tmp_path) as meter:
            shell = shell_of(meter)
            private_cluster.stop()
            said = shell.run("usage", "record", *words, code=Exit.FAILED).stderr
        private_cluster.start()
    assert "STORE_UNAVAILABLE" in said
    assert "to repeat it safely, add: --event-id" in said
    assert "--end-time 20" in said


def test_record__meter_away(lonely_shell: Shell) -> None:
    """Where no meter answers nothing was sent, and there is nothing to repeat."""
    words = ("--account", "id:acme", "--model", "m", "--tier", "high", "--input", "5")
    said = lonely_shell.run("usage", "record", *words, code=Exit.UNREACHABLE).stderr
    assert "to repeat it safely" not in said


def test_show__by_everything(shell: Shell) -> None:
    """Rows can be split by each thing, which is then a column and a field of its own."""
    shell.record("--input", "5")
    shell.show(requests=1)
    for name in GROUPS:
        (row,) = shell.show("--by", name, requests=1)
        assert ("start_time" if name in {"day", "interval"} else name) in row
        title = shell.run("usage", "show", "--by", name).stdout.splitlines()[2]
        assert title.split("input")[0].split() == name.split("_")


def test_show__of_a_subtree(shell: Shell) -> None:
    """An account's usage is its own and that of all below it, by path and in order of paths."""
    for place, account in enumerate(("other", "acme/team", "acme")):
        shell.record("--input", str(10**place), account=account)
    shell.show(requests=3)
    rows = {
        row["handle"]: row["tokens"]["input"] for row in shell.show("--by", "account", requests=3)
    }
    assert rows == {"other": 1, "team": 10, "acme": 100}
    shown = shell.run("usage", "show", "acme", "--by", "account").stdout
    cells = [line.split() for line in shown.splitlines()]
    assert cells[4:6] == [["acme", "100", "1"], ["acme/team", "10", "1"]]
    assert ["total", "110", "2"] in cells
    (row,) = shell.show("acme/team", requests=1)
    assert row["tokens"] == {"input": 10}


def test_show__one_model_and_tier(shell: Shell) -> None:
    """Of one model or tier only what is of it; of none, the reader is told what to do."""
    shell.record("--input", "5", tier="free")
    shell.record("--input", "7", tier="high")
    shell.show(requests=2)
    (row,) = shell.show("--tier", "high", "--model", "llama-4", requests=1)
    assert row["tokens"] == {"input": 7}
    assert shell.show("--model", "llama", requests=0) == []
    assert "Nothing of this model or tier" in shell.run("usage", "show", "--tier", "ultra").stdout


def test_show__times(shell: Shell) -> None:
    """Times are widened to the edges of quarters of an hour; the end is not in it."""
    edge_ms = (time_ns() // 1_000_000 // INTERVAL_MS - 8) * INTERVAL_MS
    for end_ms in (edge_ms - 1, edge_ms, edge_ms + INTERVAL_MS - 1, edge_ms + INTERVAL_MS):
        shell.record("--input", "1", "--end-time", to_iso(end_ms))
    shell.show("--since", "5h", requests=4)
    inside = ("--since", to_iso(edge_ms + 1), "--until", to_iso(edge_ms + 2))
    (row,) = shell.show(*inside, "--by", "interval", requests=2)
    assert row["start_time"] == to_iso(edge_ms)
    said = shell.run_json("usage", "show", *inside)
    assert (
        "ARGUMENT_INVALID"
        in shell.run("usage", "show", "--since", "0001-01-01", code=Exit.USAGE).stderr
    )
    assert said["start_time"] == row["start_time"]
    assert said["end_time"] == to_iso(edge_ms + INTERVAL_MS)
    assert said["counted_until"] > said["end_time"]


def test_show__nothing(empty_shell: Shell) -> None:
    """Where there is nothing, the reader is told what to type next."""
    shown = empty_shell.run("usage", "show", "acme").stdout
    assert "Nothing was counted in this time. Next:" in shown
    assert "tokenworks usage show acme --since 35d" in shown
    assert "counted until" in shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--by", "modle"), "'modle' is none of account, model"),
        (("--by", "model,model"), "at most once"),
        (("--by", "day,interval"), "day or interval, not both"),
        (("--since", "yesterday"), "yesterday is no time"),
        (("--since", "1h", "--until", "2h"), "1h is not before 2h"),
    ],
)
def test_show__wrong_options(lonely_shell: Shell, words: tuple[str, ...], said: str) -> None:
    """What cannot be asked is a usage error that says what can."""
    assert said in lonely_shell.run("usage", "show", *words, code=Exit.USAGE).stderr


def test_show__without_role(empty_shell: Shell) -> None:
    """An API key that may only report may not ask."""
    key = empty_shell.run_json("keys", "create", "acme")["secret"]
    said = empty_shell.run("usage", "show", "acme", "--api-key", key, code=Exit.REFUSED).stderr
    assert "SCOPE_MISSING" in said


def test_show__in_a_terminal(shell: Shell) -> None:
    """No line is longer than the terminal is wide, and no number is cut or broken."""
    names = ("input", "cache_read", "cache_write_5m", "cache_write_1h", "output", "reasoning")
    counts = {name: 1_234_567 + place for place, name in enumerate(names)}
    for name, count in counts.items():
        shell.record(f"--{name.replace('_', '-')}", str(count), account="acme/team")
    shell.show(requests=6)
    by = ("--by", "account,model,tier")
    for columns, is_split in ((70, False), (90, False), (110, True), (130, True)):
        lines = shell.run_in_terminal("usage", "show", *by, columns=columns)
        assert max(map(len, lines)) <= columns
        assert any("class" in line for line in lines) is not is_split
        shown = "\n".join(lines).split()
        expected = {"acme/team", "llama-4", "high", "total", *(f"{n:,}" for n in counts.values())}
        assert expected <= set(shown)


@pytest.mark.parametrize(
    ("since", "until", "span"),
    [
        ("1970-01-01T10:14", None, ("10:00", "12:15")),
        ("1970-01-01T10:15Z", "1970-01-01T10:16", ("10:15", "10:30")),
        ("1970-01-01T12:15+02:00", "1970-01-01T10:30", ("10:15", "10:30")),
        ("2h", None, ("10:00", "12:15")),
        ("90m", "15m", ("10:30", "11:45")),
        ("1970-01-01", "0m", ("00:00", "12:00")),
    ],
)
def test_span__snapped_outward(since: str, until: str | None, span: tuple[str, str]) -> None:
    """A time is a date, a date and time, or how long ago; both ends move outward to an edge."""
    found = to_span(since, until, now_ms=12 * 3_600_000)
    assert (to_iso(found.start_ms)[11:16], to_iso(found.end_ms)[11:16]) == span
