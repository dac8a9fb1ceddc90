"""The pictures of `docs/reference/invoice.md`: `python -m tests.stacks.papers` draws them anew."""

import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from billing.invoicing import Invoice
from billing.typesetting import Typesetter
from tests.billing.documents.gallery import SAMPLES

FOLDER: Final = Path(__file__).parents[2] / "docs/images/invoices"
# What is hard to set, and which pages of it are shown.
SHOWN: Final[Mapping[str, tuple[int, ...]]] = {
    "whole": (1, 2),
    "two_hundred_lines": (1, 5),
    "cjk_and_rtl": (1,),
    "zero_total": (1,),
    "credit_note": (1,),
    "long_project_names": (1,),
    "replacement": (1,),
    "dinar": (1,),
}
RESOLUTION_DPI: Final = 72
COMMAND_SECONDS_MAX: Final = 120


def run(*command: str, folder: Path) -> str:
    """Run a program in a folder; return what it printed."""
    done = subprocess.run(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=COMMAND_SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def print_paper(typesetter: Typesetter, invoice: Invoice, folder: Path) -> list[str]:
    """Print a document to `page.pdf` in a folder, and return the text of each page."""
    (folder / "page.pdf").write_bytes(typesetter.to_pdf(invoice).body)
    text = run("pdftotext", "-raw", "page.pdf", "-", folder=folder)
    return text.removesuffix("\f").split("\f")


def stands_in(name: str, text: str) -> bool:
    """Tell whether a name is in a text without blanks; one from the right is read either way."""
    squeezed = squeeze(name)
    if squeezed in text:
        return True
    letters = Counter(squeezed)
    is_from_right = any("\u0590" <= it <= "\u06ff" for it in squeezed)
    return is_from_right and all(text.count(it) >= count for it, count in letters.items())


def squeeze(text: str) -> str:
    """Return a text without blanks: in which of them rows break is not the point."""
    return "".join(text.split())


def draw(folder: Path) -> None:
    """Draw all pictures into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    typesetter = Typesetter()
    with tempfile.TemporaryDirectory() as work:
        for name, pages in SHOWN.items():
            print_paper(typesetter, SAMPLES[name](), Path(work))
            for page in pages:
                out = folder / (f"{name}-{page}" if len(pages) > 1 else name)
                only = ("-f", str(page), "-l", str(page), "-singlefile")
                drawn = ("pdftoppm", "-png", "-gray", "-r", str(RESOLUTION_DPI), *only)
                run(*drawn, "page.pdf", str(out), folder=Path(work))


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
