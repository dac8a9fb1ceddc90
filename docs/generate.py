"""Writes the pages of `docs/reference/` that are made from the code, so that they cannot lie.

python docs/generate.py          writes them
python docs/generate.py --check  exits 1 and names those that are not fresh
"""

import argparse
import dataclasses
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from google.protobuf import descriptor_pb2

import billing.metrics
import meter.metrics
from cli.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference"
_CONTRACT = "tokenworks/meter/v1"
_BILLING_CONTRACT = "tokenworks/billing/v1"
_MADE = "<!-- Made by `make docs`: change {source} instead. -->"


def main() -> int:
    """Write or check the pages; the exit code is 1 when a checked page is not fresh."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--check", action="store_true", help="name the pages that are not fresh")
    check = parser.parse_args().check
    stale = [name for name, text in make_pages() if not is_fresh(name, text=text)]
    if check:
        for name in stale:
            sys.stderr.write(f"docs/reference/{name} is not fresh: make docs\n")
        return 1 if stale else 0
    for name, text in make_pages():
        (REFERENCE / name).write_text(text, encoding="utf-8")
    return 0


def make_pages() -> Iterator[tuple[str, str]]:
    """Each page's file name and text."""
    pages: dict[str, Callable[[], str]] = {
        "metrics.md": make_metrics_page,
        "outcomes.md": make_outcomes_page,
        "settings.md": make_settings_page,
    }
    for name, make in pages.items():
        yield name, make()


def is_fresh(name: str, *, text: str) -> bool:
    """Whether the page in the tree is this text."""
    path = REFERENCE / name
    return path.exists() and path.read_text(encoding="utf-8") == text


def make_metrics_page() -> str:
    """The Prometheus metrics, one row each."""
    rows = [
        (f"`{metric.name}`", metric.kind, metric.unit, _codes(metric.labels), metric.meaning)
        for metric in (*meter.metrics.CATALOGUE, *billing.metrics.CATALOGUE)
    ]
    return _page(
        "Metrics",
        source="`meter/metrics.py` and `billing/metrics.py`",
        body=[
            "Served at `/metrics` of the HTTP port in the Prometheus text form.",
            _table(("Name", "Kind", "Unit", "Labels", "Meaning"), rows),
        ],
    )


def make_settings_page() -> str:
    """The settings, one row each."""
    rows = [
        (
            f"`{field.metadata['env']}`",
            f"`{field.name}`",
            _write_default(field.default),
            field.metadata["help"],
        )
        for field in dataclasses.fields(Settings)
    ]
    return _page(
        "Settings",
        source="`cli/settings.py`",
        body=[
            _SETTINGS_INTRODUCTION,
            _table(("Variable", "In the file", "Default", "Meaning"), rows),
        ],
    )


_SETTINGS_INTRODUCTION = """\
A flag goes before the environment, the environment before the file, the file before the default. \
The file is TOML with the names below at its top level; `TOKENWORKS_CONFIG` says where it is. A \
name that is not here is refused, in the file and in the environment, and so is a value that makes \
no sense: all faults are told at once."""


def make_outcomes_page() -> str:
    """The outcomes of events and the reasons of failed calls, from the contract's comments."""
    files = _read_contract()
    outcome = _Enum.find(files[f"{_CONTRACT}/outcome.proto"], name="Outcome")
    reason = _Enum.find(files[f"{_CONTRACT}/error_reason.proto"], name="ErrorReason")
    outcomes = [
        (str(number), f"`{name}`", "yes" if number >= _QUARANTINED_FROM else "no", comment)
        for number, name, comment in outcome.values
    ]
    of_billing = _Enum.find(files[f"{_BILLING_CONTRACT}/error_reason.proto"], name="ErrorReason")
    return _page(
        "Outcomes and error reasons",
        source=f"the comments in `proto/{_CONTRACT}/outcome.proto` and the `error_reason.proto` of"
        " both services",
        body=[
            _OUTCOMES_INTRODUCTION,
            "## Outcomes",
            outcome.comment,
            _table(("Number", "Outcome", "Quarantined", "Meaning"), outcomes),
            "## Numbers of batches",
            _table(("What comes on a stream", "What the meter answers"), _NUMBERS),
            "## Error reasons",
            reason.comment,
            _table(("Number", "Reason", "gRPC code", "Meaning"), _reason_rows(reason)),
            "## Error reasons of billing",
            of_billing.comment,
            _table(("Number", "Reason", "gRPC code", "Meaning"), _reason_rows(of_billing)),
        ],
    )


def _reason_rows(reasons: "_Enum") -> list[tuple[str, ...]]:
    return [
        (str(number), f"`{name}`", *_split_reason(text)) for number, name, text in reasons.values
    ]


_OUTCOMES_INTRODUCTION = """\
What is wrong with an event is its *outcome*: the call succeeds, and the other events are counted. \
What is wrong with a call is its *error reason*: what was not acknowledged before it was not \
recorded."""
_NUMBERS = [
    ("the number that is expected", "an ack: on disk, counted once"),
    ("a number that was recorded, with the same bytes", "an ack again; nothing is added"),
    ("a number that was recorded, with other bytes", "an ack that lists `BATCH_CHANGED`"),
    (
        "a number ahead of the expected one (a hole), or one too old to be compared",
        "`opened` with the number to go to; nothing is recorded",
    ),
    (
        "`open` whose oldest held batch lies beyond the expected number",
        "`opened` with that number; what was passed over is a gap in `tokenworks_batches_missing`",
    ),
    ("anything of an instance that a newer one has followed", "`PRODUCER_TAKEN_OVER`"),
]
# The contract's own rule, in the comment of Outcome.
_QUARANTINED_FROM = 10


def _split_reason(text: str) -> tuple[str, str]:
    """The gRPC code as code, and the sentence after it."""
    code, _, sentence = text.partition(": ")
    name, comma, rest = code.partition(",")
    return f"`{name}`{comma}{rest}", sentence[:1].upper() + sentence[1:]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Enum:
    """An enum of the contract: its comment, and number, name without prefix, comment of each."""

    comment: str
    values: list[tuple[int, str, str]]

    @classmethod
    def find(cls, file: descriptor_pb2.FileDescriptorProto, *, name: str) -> "_Enum":
        """The file's enum of this name, without its value 0, which is never sent."""
        comments = {
            tuple(place.path): " ".join(place.leading_comments.split())
            for place in file.source_code_info.location
        }
        index = next(i for i, enum in enumerate(file.enum_type) if enum.name == name)
        values = file.enum_type[index].value
        # A path is made of field numbers: 5 is a file's enum_type, 2 an enum's value.
        enum_path = (5, index)
        return cls(
            comment=comments[enum_path],
            values=[
                (value.number, _short(value.name), comments[*enum_path, 2, place])
                for place, value in enumerate(values)
                if value.number != 0
            ],
        )


def _short(name: str) -> str:
    return name.removeprefix("OUTCOME_").removeprefix("ERROR_REASON_")


def _read_contract() -> dict[str, descriptor_pb2.FileDescriptorProto]:
    buf = Path(sys.executable).with_name("buf")
    built = subprocess.run(
        [buf, "build", "proto", "--output", "-#format=binpb"],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
    )
    files = descriptor_pb2.FileDescriptorSet.FromString(built.stdout)
    return {file.name: file for file in files.file}


def _write_default(value: object) -> str:
    match value:
        case None | ():
            return "none"
        case bool():
            return f"`{str(value).lower()}`"
        case tuple():
            return f"`{','.join(value)}`"
        case _:
            return f"`{value}`"


def _page(title: str, *, source: str, body: Iterable[str]) -> str:
    return "\n\n".join([f"# {title}", _MADE.format(source=source), *body]) + "\n"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    return "\n".join(_row(cells) for cells in (head, ("---",) * len(head), *rows))


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _codes(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


if __name__ == "__main__":
    sys.exit(main())
