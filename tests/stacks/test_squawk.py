"""Squawk reads the migrations as SQL: what locks a table for long, or writes it anew, is found."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
from alembic import command

import migrations

pytestmark = pytest.mark.stacks
SQUAWK: Final = Path(sys.executable).parent / "squawk"
# The last migration before there were rules for those that run beside the traffic.
BEFORE: Final = "0008_pre_periods"
# What Alembic and `migrations/env.py` see to, and what is a matter of taste: numbers have their
# size for a reason.
OTHERWISE: Final = (
    "prefer-bigint-over-int",
    "prefer-bigint-over-smallint",
    # Of the one step outside a transaction that says no IF: it may be done again all the same.
    "prefer-robust-stmts",
    "require-lock-timeout",
    "require-statement-timeout",
    "transaction-nesting",
)
# What is known, and why it is harmless.
KNOWN: Final = {
    # An index of a new and empty column, on the API keys: a table of some thousand rows.
    "disallowed-unique-constraint": 1,
    # `0018_post_reports` takes away what only servers of before wrote, when none of them runs.
    "ban-drop-table": 1,
    "ban-drop-function": 1,
}


def lint(statements: str, folder: Path) -> dict[str, int]:
    """Return how often each rule is broken by some SQL."""
    path = folder / "migrations.sql"
    path.write_text(statements, "utf-8")
    done = subprocess.run(
        [
            SQUAWK, "--reporter", "json", "--pg-version", "15",
            "--exclude", ",".join(OTHERWISE), path,
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode in {0, 1}, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout or "[]")
    counts: dict[str, int] = {}
    for it in found:
        counts[it["rule_name"]] = counts.get(it["rule_name"], 0) + 1
    return counts


def test_migrations__lock_nothing_for_long(tmp_path: Path) -> None:
    """Migrations that run beside the traffic break no rule of squawk but those that are known."""
    config = migrations._config("postgresql://nobody@127.0.0.1/none")  # noqa: SLF001
    config.output_buffer = io.StringIO()
    command.upgrade(config, f"{BEFORE}:head", sql=True)
    statements = config.output_buffer.getvalue()
    assert "VALIDATE CONSTRAINT" in statements
    assert lint(statements, tmp_path) == KNOWN


@pytest.mark.parametrize(
    ("statement", "rule"),
    [
        ("ALTER TABLE usage ALTER COLUMN input TYPE numeric;", "changing-column-type"),
        ("CREATE INDEX slow ON usage (input);", "require-concurrent-index-creation"),
        ("ALTER TABLE usage ADD CONSTRAINT c CHECK (input > 0);", "constraint-missing-not-valid"),
    ],
)
def test_migrations__that_would_lock(statement: str, rule: str, tmp_path: Path) -> None:
    """What would hold the traffic up is found."""
    assert rule in lint(statement, tmp_path)
