"""The faces of papers: the package's, whatever the machine has of the same name."""

import io
import os
import subprocess
import sys
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Final

import pymupdf_fonts
import pytest
from fontTools.ttLib import TTFont

from billing.typefaces import load_typefaces
from billing.typesetting import Typesetter, UnprintableDocument
from tests.billing.documents.gallery import SAMPLES

PROGRAM: Final = """
from hashlib import sha256
from billing.typesetting import Typesetter
from tests.billing.documents.gallery import SAMPLES
print(sha256(Typesetter().to_pdf(SAMPLES["cjk_and_rtl"]()).body).hexdigest())
"""
COMMAND_SECONDS_MAX: Final = 60


def test_load_typefaces__leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was laid out for typst is gone at once, and papers are set without it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    families = load_typefaces().families()
    assert {"Noto Sans", "FiraGO"} <= set(families)
    assert not list(tmp_path.iterdir())
    assert Typesetter().to_pdf(SAMPLES["two_lines"]()).unshown == ""


def test_to_pdf__beside_another_font_of_the_same_name(tmp_path: Path) -> None:
    """A font of the machine that calls itself Noto Sans changes no byte of a paper."""
    folder = tmp_path / ".local/share/fonts"
    folder.mkdir(parents=True)
    other = TTFont(io.BytesIO(pymupdf_fonts.myfont("ubuntu")))
    for row in other["name"].names:
        if row.nameID in {1, 16}:
            row.string = "Noto Sans"
    other.save(folder / "other.ttf")
    printed = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True,
        timeout=COMMAND_SECONDS_MAX,
        check=True,
        text=True,
    )
    here = Typesetter().to_pdf(SAMPLES["cjk_and_rtl"]()).body
    assert printed.stdout.strip() == sha256(here).hexdigest()


def test_to_pdf__without_a_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing can be written the paper is refused with the reason, and made when it can."""
    press = Typesetter()
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
        with pytest.raises(UnprintableDocument, match="temporary folder"):
            press.to_pdf(SAMPLES["two_lines"]())
    assert press.to_pdf(SAMPLES["two_lines"]()).unshown == ""
