"""The page of the audit log names each action that there is, and none that there is not."""

import re
from pathlib import Path

from billing.actions import BillingAction
from meter.audit_log import Action

PAGE = Path(__file__).resolve().parents[2] / "docs/operating/audit-log.md"
ACTION = re.compile(r"^\| `([a-z]+\.[a-z_]+)` \|", re.MULTILINE)


def test_actions__are_those_of_the_code() -> None:
    """The table has the meter's actions and billing's, each once, in their order."""
    assert ACTION.findall(PAGE.read_text("utf-8")) == [*Action, *BillingAction]
