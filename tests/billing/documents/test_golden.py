"""An ordinary month in all four forms, byte by byte, so that no change goes unseen.

After a change that is meant, write them anew and look at what changed:

    python -m tests.billing.documents.gallery tests/billing/documents/golden month
"""

from pathlib import Path

import pytest

from billing.documents.canonical import from_json, to_json
from tests.billing.documents.gallery import SAMPLES, WRITERS, write_all

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("suffix", WRITERS)
def test_document__is_as_it_was(suffix: str) -> None:
    """The documents of an ordinary month are those that were looked at."""
    assert WRITERS[suffix](SAMPLES["month"]()) == (GOLDEN / f"month.{suffix}").read_bytes()


def test_document__of_engine_1() -> None:
    """What was issued before there were kinds, taxes and hashes is read and written as it was."""
    document = (GOLDEN / "month-engine-1.json").read_bytes()
    assert to_json(from_json(document)) == document


def test_gallery__writes_all(tmp_path: Path) -> None:
    """Every sample is written in every form."""
    write_all(tmp_path)
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {f"{name}.{suffix}" for name in SAMPLES for suffix in WRITERS}
