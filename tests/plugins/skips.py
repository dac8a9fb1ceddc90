"""Ends every run with one line, `skipped: N (reasons)`; a skip that nobody sees is a test less."""

from collections import Counter
from collections.abc import Generator

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the option that makes a skip red where everything can be installed."""
    parser.addoption(
        "--skips-are-errors",
        action="store_true",
        help="fail the run when any test was skipped",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Counts the skips of this run."""
    config.pluginmanager.register(Skips(config), "skips-of-this-run")


class Skips:
    """The reasons of the skips so far, each with its count."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._reasons: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Takes the skip of a test; an expected failure is none."""
        if report.skipped and not hasattr(report, "wasxfail"):
            self._reasons[_reason(report)] += 1

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Takes the skip of a whole module."""
        if report.skipped:
            self._reasons[_reason(report)] += 1

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None]:
        """Writes the line below pytest's own closing lines, and settles the exit status."""
        yield
        total = self._reasons.total()
        reasons = "; ".join(f"{count} × {reason}" for reason, count in self._reasons.most_common())
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.write_line(f"skipped: {total} ({reasons or 'none'})")
        refused = self._config.getoption("--skips-are-errors") and total > 0
        if refused and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Why, without pytest's prefix."""
    match report.longrepr:
        case (_, _, str(reason)):
            return reason.removeprefix("Skipped: ")
        case other:
            return str(other)
