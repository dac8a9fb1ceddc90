"""The forms that documents come in, and how a document is written out."""

import sys
from typing import Any, Final

from tokenworks.billing.v1 import billing_service_pb2 as pb

FORMATS: Final = {
    "text": pb.DOCUMENT_FORMAT_TEXT,
    "json": pb.DOCUMENT_FORMAT_JSON,
    "html": pb.DOCUMENT_FORMAT_HTML,
    "csv": pb.DOCUMENT_FORMAT_CSV,
    "pdf": pb.DOCUMENT_FORMAT_PDF,
}
# Several of these can stand one after the other.
TEXT_FORMATS: Final = [name for name in FORMATS if name != "pdf"]


def write_document(document: bytes) -> None:
    """Write a document as it came, whatever the terminal's encoding is."""
    out: Any = sys.stdout
    out.flush()
    out.buffer.write(document)
    out.buffer.flush()
