"""Which form of a document is made by what."""

from collections.abc import Callable, Mapping
from typing import Final

from billing.documents.canonical import to_json
from billing.documents.explanation import explanation_to_json, explanation_to_text
from billing.documents.html import to_html
from billing.documents.table import to_csv
from billing.documents.text import to_text
from billing.explanation import Explanation
from billing.invoicing import Invoice

RENDER: Final[Mapping[str, Callable[[Invoice], bytes]]] = {
    "text": to_text,
    "json": to_json,
    "html": to_html,
    "csv": to_csv,
}
RENDER_EXPLANATION: Final[Mapping[str, Callable[[Explanation], bytes]]] = {
    "text": explanation_to_text,
    "json": explanation_to_json,
}
