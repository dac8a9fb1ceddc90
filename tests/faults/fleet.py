"""The reporting processes of a row: started, steered over their stdin, drained, killed."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final

from tests.faults.reporter import Orders

_START_SECONDS_MAX: Final = 30
ROOT: Final = Path(__file__).parents[2]
"""Where `tests` lies."""
"""Where `tests` lies."""


class Sender:
    """One reporting process."""

    def __init__(
        self, program: str, orders: Orders, *, environment: Mapping[str, str] | None = None
    ) -> None:
        """Start it; returns once it reports. Raises RuntimeError when it does not."""
        self.orders = orders
        self.name = Path(orders.truth).stem
        self.was_killed = False
        self.told: dict[str, Any] | None = None
        """Its statistics at the end; None for one that was killed."""
        self.log = Path(orders.truth).with_suffix(".log")
        self._answers: SimpleQueue[str] = SimpleQueue()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", f"tests.faults.{program}", json.dumps(asdict(orders))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=ROOT,
                env=os.environ | dict(environment or {}),
                text=True,
            )
        threading.Thread(target=self._listen, daemon=True).start()
        try:
            first = self._answers.get(timeout=_START_SECONDS_MAX)
        except Empty:
            first = ""
        if not first:
            self.close()
            raise RuntimeError(f"{program} did not start:\n{self.log.read_text('utf-8')[-3000:]}")

    @property
    def is_running(self) -> bool:
        """Whether it lives."""
        return self.process.poll() is None

    def say(self, command: str) -> None:
        """Give it a command: hold, resume, drain SECONDS."""
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        """End it without notice."""
        self.process.kill()
        self.process.wait()
        self.was_killed = True

    def pause(self, seconds: float) -> float:
        """Stop it by a signal for some seconds, then let it go on; returns for how long."""
        begin = time.monotonic()
        self.process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        self.process.send_signal(signal.SIGCONT)
        return time.monotonic() - begin

    def begin_draining(self, seconds: float) -> None:
        """Ask it to deliver all it has and to end."""
        if self.is_running:
            self.say(f"drain {seconds:g}")

    def finish(self, seconds: float) -> dict[str, Any]:
        """Wait for its end; returns its statistics. Raises RuntimeError when none came."""
        try:
            answer = self._answers.get(timeout=seconds)
        except Empty:
            answer = ""
        self.close()
        if not answer:
            raise RuntimeError(
                f"{self.name} did not end well:\n{self.log.read_text('utf-8')[-3000:]}"
            )
        told: dict[str, Any] = json.loads(answer)
        self.told = told
        return told

    def close(self) -> None:
        """Leave nothing running."""
        try:
            self.process.send_signal(signal.SIGCONT)
            self.process.wait(5 if self.told is None and not self._answers.empty() else 0.2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    continue

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._answers.put(line)
        self._answers.put("")
