"""The events that reporting processes make up, and where they write them down first."""

import json
import os
import random
from pathlib import Path
from typing import Any, Final

_ACCOUNTS: Final = ("acme", "globex", "initech", "hooli")
_TIERS: Final = ("free", "medium", "high", "premium", "ultra")
_MODELS: Final = ("kimi-k2.6", "glm-5.1")


class Truth:
    """A file of what was about to be reported, a JSON object a line.

    A line is with the operating system when `append` returns: it outlives a kill of the process.
    """

    def __init__(self, path: Path) -> None:
        """Begin a new file; one of that name must not exist."""
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        self._promised = os.open(
            path.with_suffix(".promised"), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644
        )
        self._refused = path.with_suffix(".refused")
        self.count = 0

    def append(self, events: list[dict[str, Any]]) -> None:
        """Write events down in one step."""
        text = "".join(json.dumps(event, separators=(",", ":")) + "\n" for event in events)
        written = os.write(self._file, text.encode())
        assert written == len(text), "a truth that is torn is none"
        self.count += len(events)

    def refuse(self, names: list[str]) -> None:
        """Note events that the client did not take and said so: they must never count."""
        with self._refused.open("a", encoding="ascii") as file:
            file.writelines(f"{name}\n" for name in names)

    def promise(self, count: int) -> None:
        """Note that the first `count` events must never be lost from now on."""
        os.pwrite(self._promised, b"%012d" % count, 0)


class Source:
    """Draws events from a seed; each has a request id of its own."""

    def __init__(self, name: str) -> None:
        """`name` begins the request ids and is the seed."""
        self._name = name
        self._random = random.Random(name)
        self._count = 0

    def draw(self, *, end_ms: int) -> dict[str, Any]:
        """Return an event as the truth has it."""
        self._count += 1
        number = self._random.getrandbits(40)
        return {
            "account": _ACCOUNTS[number % 4],
            "tier": _TIERS[(number >> 2) % 5],
            "model": _MODELS[(number >> 6) % 2],
            "mode": "online",
            "end_time_ms": end_ms,
            "classes": {
                "input": 1 + (number >> 8) % 4_000,
                "cache_read": (number >> 20) % 900,
                "output": 1 + (number >> 30) % 700,
            },
            "request_id": f"{self._name}-{self._count}",
        }
