"""The faces that papers are set in: those of a package, and then those of the machine.

typst takes faces from folders alone, and reads a file when it first needs one. So ours are laid
into a folder of their own and read at once; then it goes. Nothing is left behind by a kill later
on, and nobody can change or clear away what papers are set in.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pymupdf_fonts
import typst

# Noto Sans for Latin, Greek and Cyrillic; FiraGO for Arabic, Hebrew, Thai, Devanagari, Georgian.
_FAMILIES: Final = ("Noto Sans", "FiraGO")
# Their names in the package: each family's regular and bold, the weights of the layout.
_FACES: Final = ("notos", "notosbo", "figo", "figbo")
_SPECIMEN: Final = b"""#for family in ("Noto Sans", "FiraGO") {
  for weight in ("regular", "bold") { text(font: family, weight: weight)[A] }
}"""


def load_typefaces() -> typst.Fonts:
    """Return all faces; raises OSError when there is no temporary folder to write to.

    A face of the machine that bears the name of one of ours is left out: it may be of another
    edition, and papers would not be the same bytes as elsewhere.
    """
    with TemporaryDirectory(prefix="tokenworks-faces-") as name:
        ours, others = Path(name, "ours"), Path(name, "others")
        ours.mkdir()
        others.mkdir()
        for face in _FACES:
            ours.joinpath(f"{face}.ttf").write_bytes(pymupdf_fonts.myfont(face))
        for place, path in enumerate(_machine_files()):
            # typst keeps where a link leads to, not the link.
            others.joinpath(f"{place}{path.suffix}").symlink_to(path)
        fonts = typst.Fonts(include_system_fonts=False, font_paths=[str(ours), str(others)])
        found = [it.family for it in fonts.fonts() if it.family in _FAMILIES]
        assert len(found) == len(_FACES), f"the package has other faces: {found}"
        typst.Compiler(_SPECIMEN, font_paths=fonts).compile(_SPECIMEN, format="pdf")
    return fonts


def _machine_files() -> list[Path]:
    faces = typst.Fonts(include_embedded_fonts=False).fonts()
    same = {it.path for it in faces if it.family in _FAMILIES}
    return sorted({Path(it.path) for it in faces if it.path is not None and it.path not in same})
