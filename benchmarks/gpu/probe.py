"""`python -m benchmarks.gpu.probe --out FOLDER`: four minutes on a GPU, into small files.

It needs torch and nvidia-ml-py, and nothing of the product.
"""

import argparse
import csv
import json
import platform
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.gpu.board import Board
from benchmarks.gpu.readings import Readings

if TYPE_CHECKING:
    # They import torch, which is loaded while the idle card is watched.
    from benchmarks.gpu.decoder import Decoder
    from benchmarks.gpu.windows import Mix

_GIB: Final = 1024**3


class Probe:
    """One run: its phases, in order, and the files that they fill."""

    def __init__(self, out: Path, *, seconds: float, device: str) -> None:
        self._out = out
        self._device = device
        self._scale = seconds / 215
        self._until = time.monotonic() + seconds
        self._board = Board()
        self._facts: dict[str, Any] = {"nvml": self._board.facts(), "phases": []}
        self._rows: list[dict[str, Any]] = []

    def run(self) -> None:
        """Go through the phases; what is known is on disk after each."""
        loading = threading.Thread(target=import_module, args=("torch",))
        with self._phase("idle, unwatched"):
            self._sleep(6)
        with self._polling("poll.csv"):
            loading.start()
            with self._phase("idle, watched"):
                self._sleep(12)
            loading.join()
            self._load()
        self._save()
        self._thin()

    def _load(self) -> None:
        torch = import_module("torch")
        decoder = import_module("benchmarks.gpu.decoder")
        windows = import_module("benchmarks.gpu.windows")
        gpu = self._device == "cuda"
        with self._phase("idle, context"):
            torch.zeros(1, device=self._device)
            self._sleep(4)
        with self._phase("loading"):
            shape = decoder.EIGHT_BILLION if gpu else decoder.TINY
            model = decoder.Decoder(
                shape,
                device=self._device,
                cache_bytes=40 * _GIB if gpu else _GIB // 4,
                length_max=16384,
            )
            model.wait()
        self._facts["model"] = {
            "parameters": shape.parameters,
            "attention": model.attention,
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "python": platform.python_version(),
        }
        self._save()
        with self._phase("idle, loaded"):
            self._sleep(5)
            with self._polling("steps_idle.csv", "--period-ms", "1", "--counter-only"):
                self._sleep(4)
        with self._phase("warming"):
            self._window(windows.STEADY, model=model, seconds=3, kept=False)
            self._window(windows.SQUARE, model=model, seconds=1, kept=False)
        often = self._polling("steps_steady.csv", "--period-ms", "1", "--counter-only")
        with self._phase("steady"), often:
            self._window(windows.STEADY, model=model, seconds=7)
        with self._phase("square"):
            self._window(windows.SQUARE, model=model, seconds=12)
        with self._phase("cooling"):
            self._window(windows.Mix(kind="idle"), model=model, seconds=8)
        mixes = list(windows.MIXES)
        random.Random(4).shuffle(mixes)
        for mix in mixes:
            if time.monotonic() > self._until:
                break
            self._window(mix, model=model, seconds=3.6)
            self._save()

    def _window(self, mix: "Mix", *, model: "Decoder", seconds: float, kept: bool = True) -> None:
        run_window = import_module("benchmarks.gpu.windows").run_window
        window = run_window(mix, board=self._board, model=model, seconds=seconds * self._scale)
        row = window.row()
        print(row, flush=True)
        if kept:
            self._rows.append(row)

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        begun = self._board.edge()
        yield
        ended = self._board.edge()
        watts = (ended.counter_mj - begun.counter_mj) / ((ended.time_us - begun.time_us) / 1000)
        phase = {
            "name": name,
            "start_ms": begun.time_us / 1000,
            "end_ms": ended.time_us / 1000,
            "energy_mj": ended.counter_mj - begun.counter_mj,
            "watts": round(watts, 3),
            "after": self._board.facts(),
        }
        print(name, phase["watts"], flush=True)
        self._facts["phases"].append(phase)

    @contextmanager
    def _polling(self, name: str, *words: str) -> Iterator[None]:
        program = [sys.executable, "-m", "benchmarks.gpu.poll", str(self._out / name), *words]
        process = subprocess.Popen(program)
        time.sleep(0.3)
        try:
            yield
        finally:
            process.terminate()
            process.wait()

    def _sleep(self, seconds: float) -> None:
        time.sleep(seconds * self._scale)

    def _save(self) -> None:
        self._out.mkdir(parents=True, exist_ok=True)
        poll = self._out / "poll.csv"
        if poll.exists() and self._rows:
            readings = Readings.load(poll)
            for row in self._rows:
                span = (row["start_ms"], row["end_ms"])
                row["gauge_mj"] = readings.integral_mj("power_mw", *span)
                row["instant_mj"] = readings.integral_mj("instant_mw", *span)
            with (self._out / "windows.csv").open("w", encoding="utf-8", newline="") as file:
                table = csv.DictWriter(file, list(self._rows[0]), lineterminator="\n")
                table.writeheader()
                table.writerows(self._rows)
        text = json.dumps(self._facts, indent=1, ensure_ascii=False)
        (self._out / "facts.json").write_text(text + "\n", "utf-8")

    def _thin(self) -> None:
        """Keep every fifth reading: one in 100 ms."""
        lines = (self._out / "poll.csv").read_text("utf-8").splitlines(keepends=True)
        (self._out / "trace.csv").write_text("".join([lines[0], *lines[1::5]]), "utf-8")


def main() -> int:
    """Probe the first GPU; on another device than cuda the model is tiny, to try the program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.probe")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=215.0)
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    Probe(options.out, seconds=options.seconds, device=options.device).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
