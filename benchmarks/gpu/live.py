"""`python -m benchmarks.gpu.live --out FOLDER`: the real meter beside a model that really serves.

Both run on the machine of the GPU: `tokenworks up` reads NVML, the model reports what it served.
Beside them a program of its own reads the same counter, so that the meter can be checked.
"""

import argparse
import csv
import json
import os
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from importlib import import_module
from pathlib import Path
from typing import Any, Final

_EDGE_SECONDS: Final = 900
_DESCRIPTION: Final = """\
format = 1
from = {begin}
[sites.lab]
contracted_watts = 1_000
pue = "1.20"
[pools.h100]
site = "lab"
hardware = "H100 SXM"
idle_watts = "125"
[[weights]]
input = "0.31"
cached_input = "0.002"
output = "1"
source = "tests/fixtures/h100, 2026-11-25"
"""
_ACCOUNTS: Final = ("chat", "search", "agents", "research")
_CONTRACT: Final = (
    *("--contract", "lab", "--zone", "UTC", "--currency", "USD", "--book", "keynote"),
    *("--seller", "Lab", "--seller-address", "Here", "--buyer", "Lab", "--buyer-address", "Here"),
    *(word for account in _ACCOUNTS for word in ("--covers", f"id:{account}")),
)
_PROGRAM: Final = f"{sys.executable} -c 'from cli.main import main; main()'"
_TABLES: Final = ("energy_counters", "energy_intervals", "pool_intervals", "energy_shares")


class Run:
    """One run, its folder and its transcript."""

    def __init__(self, out: Path, *, device: str, program: str) -> None:
        self._out = out
        self._device = device
        self._program = shlex.split(program)
        self._folder = Path("/tmp/tokenworks-live")  # noqa: S108 - the machine is thrown away
        self._environment = os.environ | {
            "TOKENWORKS_CREDENTIALS_FILE": str(self._folder / "credentials.json")
        }
        self._transcript = (out / "transcript.txt").open("w", encoding="utf-8")
        self._processes: list[subprocess.Popen[str]] = []

    def run(self, *, until: float) -> None:
        """Start all, serve until a time (unix seconds), ask, and stop."""
        edge = until // _EDGE_SECONDS * _EDGE_SECONDS
        begin = _iso(edge - _EDGE_SECONDS)
        try:
            addresses = self._up()
            credentials = json.loads((self._folder / "credentials.json").read_text("utf-8"))
            for account in _ACCOUNTS:
                self._ask("accounts", "create", account, "--id", account)
            self._ask("prices", "import", "keynote")
            quarter = time.time() // _EDGE_SECONDS * _EDGE_SECONDS
            self._ask("contracts", "set", *_CONTRACT, "--from", _iso(quarter).removesuffix("Z"))
            description = self._out / "factory.toml"
            description.write_text(_DESCRIPTION.format(begin=begin), "utf-8")
            self._ask("factory", "set", str(description))
            self._start("benchmarks.gpu.poll", str(self._out / "poll.csv"), "--period-ms", "50")
            serving = self._start(
                *("benchmarks.gpu.serve", str(self._out / "served.csv"), "--until", str(until)),
                *("--device", self._device),
                TOKENWORKS_SERVER=addresses["grpc"],
                TOKENWORKS_API_KEY=credentials["api_key"],
            )
            asked = 0
            while serving.poll() is None:
                time.sleep(10)
                self._snapshot(addresses["http"])
                asked += 1
                if asked in {3, 9}:
                    self._ask("energy", "sources")
                    self._ask("top", "--once", "--every", "20", "--window", "20")
            self._wait_until_attributed(edge)
            self._questions(edge)
            self._dump(addresses["postgres"])
            self._snapshot(addresses["http"])
            self._conflict()
        finally:
            self._stop()

    def _up(self) -> dict[str, str]:
        settings = {
            "TOKENWORKS_ENERGY_SOURCES": "h100=nvml",
            "TOKENWORKS_ENERGY_SCRAPE_SECONDS": "5",
        }
        with (self._out / "meter.log").open("w", encoding="utf-8") as log:
            process = subprocess.Popen(
                [*self._program, "up", "--dir", str(self._folder), "--json"],
                env=os.environ | settings,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._processes.append(process)
        assert process.stdout is not None
        return dict(json.loads(process.stdout.readline()))

    def _start(self, module: str, *words: str, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *words], env=os.environ | environment, text=True
        )
        self._processes.append(process)
        return process

    def _ask(self, *words: str) -> str:
        try:
            result = subprocess.run(
                [*self._program, *words],
                env=self._environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
        except subprocess.TimeoutExpired:
            self._transcript.write(f"$ tokenworks {shlex.join(words)}\n[no answer in 60 s]\n\n")
            return ""
        shown = result.stdout + result.stderr
        self._transcript.write(f"$ tokenworks {shlex.join(words)}\n{shown}")
        self._transcript.write(f"[exit {result.returncode}]\n\n" if result.returncode else "\n")
        self._transcript.flush()
        return result.stdout

    def _snapshot(self, http: str) -> None:
        try:
            with urllib.request.urlopen(f"http://{http}/metrics", timeout=5) as answer:
                lines = answer.read().decode().splitlines()
        except OSError as error:
            print("no metrics:", error)
            return
        words = ("energy", "power", "pue", "pool_info", "tokens_total", "revenue_total", "carbon")
        kept = [
            line
            for line in lines
            if line.startswith("tokenworks_") and any(word in line for word in words)
        ]
        (self._out / "metrics.txt").write_text("\n".join(kept) + "\n", "utf-8")
        with (self._out / "metrics.jsonl").open("a", encoding="utf-8") as file:
            few = [line for line in kept if "energy_joules_total{" in line or "valid" in line]
            file.write(json.dumps({"time": time.time(), "lines": few}) + "\n")

    def _conflict(self) -> None:
        """Report the board that the meter reads itself, as of another pool."""
        words = ("energy", "report", "--pool", "other", "--every", "1")
        process = subprocess.Popen(
            [*self._program, *words],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        time.sleep(5)
        process.send_signal(signal.SIGINT)
        shown = process.communicate(timeout=20)[0]
        self._transcript.write(f"$ tokenworks {shlex.join(words)}\n{shown}\n")
        self._ask("energy", "sources")

    def _wait_until_attributed(self, edge: float) -> None:
        until = time.monotonic() + 60
        wanted = _iso(edge)
        while time.monotonic() < until:
            told = self._ask("energy", "show", "--since", "1h", "--json")
            if told and str(json.loads(told).get("attributed_until") or "") >= wanted:
                return
            time.sleep(3)

    def _questions(self, edge: float) -> None:
        since = _iso(edge - _EDGE_SECONDS)
        span = ("--since", since, "--until", _iso(edge))
        self._ask("energy", "show", *span)
        self._ask("energy", "show", "--by", "account,tier,model", *span, "--json")
        self._ask("energy", "show", "--by", "pool,interval", "--since", since)
        self._ask("energy", "calibrate", "--pool", "h100", "--since", since)
        self._ask("usage", "show", "--by", "tier", *span)
        self._ask("factory", "show")
        self._ask("energy", "sources", "--json")
        self._ask("usage", "show", "--by", "account,tier", *span, "--json")
        self._ask("energy", "show", "--by", "tier", *span, "--json")

    def _dump(self, postgres: str) -> None:
        # It comes with the meter, not with the GPU.
        psycopg = import_module("psycopg")
        dict_row = import_module("psycopg.rows").dict_row
        word = (self._folder / "postgres" / "password").read_text("utf-8").strip()
        self._environment["TOKENWORKS_DATABASE_URL"] = postgres.replace("@", f":{word}@")
        self._ask("doctor", "--audit")
        dumped: dict[str, Any] = {}
        with psycopg.connect(postgres, password=word) as connection:
            for table in _TABLES:
                cursor = connection.cursor(row_factory=dict_row)
                dumped[table] = cursor.execute(f"TABLE {table}").fetchall()
        text = json.dumps(dumped, indent=1, default=str)
        (self._out / "tables.json").write_text(text + "\n", "utf-8")

    def _stop(self) -> None:
        for process in reversed(self._processes):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
        self._transcript.close()


def _iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def main() -> int:
    """Serve over the next edge of an interval, which is when its energy is attributed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.live")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--after", type=float, default=60.0, help="seconds to serve after the edge")
    parser.add_argument("--for", dest="seconds", type=float, help="instead: seconds to serve")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--program", default=_PROGRAM)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    now = time.time()
    until = (now // _EDGE_SECONDS + 1) * _EDGE_SECONDS + options.after
    if options.seconds is not None:
        until = now + options.seconds
    Run(options.out, device=options.device, program=options.program).run(until=until)
    with (options.out / "served.csv").open(encoding="utf-8", newline="") as file:
        print(len(list(csv.DictReader(file))), "spans served")
    return 0


if __name__ == "__main__":
    sys.exit(main())
