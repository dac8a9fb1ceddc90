"""A window too short for how often boards are read is refused at the start, with what to change."""

import os
import subprocess

from tests.running_meter import TOKENWORKS

USAGE_ERROR = 2
WAIT_SECONDS_MAX = 60
NAMES = ("energy_collect_seconds", "energy_scrape_seconds")


def test_start__window_shorter_than_four_samples() -> None:
    """A rate over five minutes of boards read each 76 seconds is refused by its settings' names."""
    result = subprocess.run(
        [TOKENWORKS, "serve"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=os.environ | {f"TOKENWORKS_{name.upper()}": "76" for name in NAMES},
        text=True,
        timeout=WAIT_SECONDS_MAX,
        check=False,
    )
    assert result.returncode == USAGE_ERROR, result.stderr
    for name in NAMES:
        assert f"{name}: must be at most 75" in result.stderr
    assert "300 seconds" in result.stderr
