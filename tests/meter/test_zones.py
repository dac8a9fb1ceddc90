"""The edition of the time zones: the one that is really read."""

from pathlib import Path

import pytest
import tzdata  # type: ignore[import-untyped]

from meter.runtime.zones import UNKNOWN_EDITION, edition_on, tzdata_version


def folder_with(path: Path, *, says: str | None) -> str:
    """A folder of zones, with a source that begins like this."""
    path.mkdir()
    (path / "UTC").write_bytes(b"TZif")
    if says is not None:
        (path / "tzdata.zi").write_text(says, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("says", "edition"),
    [
        ("# version 2026f\n# more\n", "2026f"),
        ("# no edition\n", UNKNOWN_EDITION),
        (None, UNKNOWN_EDITION),
    ],
)
def test_edition__of_the_machine(tmp_path: Path, says: str | None, edition: str) -> None:
    """The machine's zones are read first: theirs is the edition, known or not."""
    assert edition_on((str(tmp_path / "none"), folder_with(tmp_path / "zones", says=says))) == (
        edition
    )


def test_edition__of_the_package(tmp_path: Path) -> None:
    """Where the machine has no zones, the package's are read."""
    assert edition_on((str(tmp_path),)) == tzdata.IANA_VERSION


def test_edition__of_this_machine() -> None:
    """There is one."""
    assert tzdata_version()
