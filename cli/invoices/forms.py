"""The forms that documents come in, and how a document is written out."""

import sys
from pathlib import Path
from typing import Any, Final

import click

from cli.process import CommandError, Exit, report_progress
from tokenworks.billing.v1 import billing_service_pb2 as pb

FORMATS: Final = {
    "text": pb.DOCUMENT_FORMAT_TEXT,
    "json": pb.DOCUMENT_FORMAT_JSON,
    "html": pb.DOCUMENT_FORMAT_HTML,
    "csv": pb.DOCUMENT_FORMAT_CSV,
    "pdf": pb.DOCUMENT_FORMAT_PDF,
}
OUT: Final = click.option(
    "--out",
    "path",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write it to a file, as it is kept.",
)


def require_place(form: str, path: Path | None) -> None:
    """Refuse to write a PDF to a terminal; raises CommandError."""
    if form == "pdf" and path is None and sys.stdout.isatty():
        raise CommandError(
            "a PDF is not written to a terminal: name a file with --out", code=Exit.USAGE
        )


def write_document(document: bytes, path: Path | None = None) -> None:
    """Write a document as it came, whatever the terminal's encoding is; raises CommandError."""
    if path is None:
        out: Any = sys.stdout
        out.flush()
        out.buffer.write(document)
        out.buffer.flush()
        return
    try:
        path.write_bytes(document)
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from error
    report_progress(f"{path}: {len(document):,} bytes")
