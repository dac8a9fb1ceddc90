"""What a mutant is, and the list of them."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
LIST: Final = Path(__file__).with_name("mutants.toml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """A change that takes a protection away.

    `old` stands once in `file`, and `new` takes its place. `tests` are words for pytest.
    """

    name: str
    guarantee: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def apply(self, tree: Path) -> None:
        """Change the file in a copy of the tree; ValueError where `old` does not stand once."""
        path = tree / self.file
        text = path.read_text("utf-8")
        if text.count(self.old) != 1:
            raise ValueError(f"{self.name}: `old` stands {text.count(self.old)} times")
        path.write_text(text.replace(self.old, self.new), "utf-8")


def read_mutants() -> list[Mutant]:
    """Read the list, in its order."""
    entries = tomllib.loads(LIST.read_text("utf-8"))["mutant"]
    return [Mutant(**{**entry, "tests": tuple(entry["tests"])}) for entry in entries]
