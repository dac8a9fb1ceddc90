"""`tokenworks audit list`: who changed what, as people and programs read it."""

from cli.process import Exit
from tests.cli.shell import shell_of
from tests.running_meter import RunningMeter


def test_list__as_people_read_it(running_meter: RunningMeter) -> None:
    """The newest comes first, filters leave out the rest, and a limit says that there is more."""
    shell = shell_of(running_meter)
    shell.run("producers", "register", "phone", "--account", "acme", "--edge")
    shell.run("producers", "list")
    (key_id,) = (it["subject"] for it in shell.run_json("audit", "list", "--key", "job"))
    first = shell.run_json("audit", "list")[0]
    assert (first["key_id"], first["action"], first["subject"]) == (
        key_id,
        "producer.register",
        "phone",
    )
    assert first["detail"]["edge"] is True
    shown = shell.run("audit", "list", "--action", "account", "--limit", "1")
    header, *_, line = filter(str.strip, shown.stdout.splitlines())
    assert header.split() == ["time", "by", "action", "subject", "detail"]
    assert line.split()[2:] == [key_id, "account.create", line.split()[4], "handle", "other"]
    assert shown.stderr == "There are more than 1: --limit shows more.\n"
    assert len(shell.run_json("audit", "list", "--since", "1h")) == 5
    assert shell.run_json("audit", "list", "--until", "1h") == []
    assert shell.run("audit", "list", "--action", "none").stdout == "Nothing was changed.\n"
    refused = shell.run("audit", "list", "--since", "soon", code=Exit.USAGE)
    assert "soon is no time" in refused.stderr
    shell.run("prices", "import", "keynote")
    sha256 = shell.run_json("audit", "list", "--action", "book")[0]["detail"]["sha256"]
    told = shell.run("audit", "list", "--action", "book").stdout.split()
    assert told[-4:] == ["from", "2026-01-01T00:00Z,", "sha256", f"{sha256[:12]}…"]
    (listed,) = shell.run_json("producers", "list")
    assert listed["edge"] is True
    assert "registered, edge" in shell.run("producers", "list").stdout
