"""Which form of an explanation is made by what."""

from collections.abc import Callable, Mapping
from typing import Final

from billing.documents.explanation import explanation_to_json, explanation_to_text
from billing.explanation import Explanation

RENDER_EXPLANATION: Final[Mapping[str, Callable[[Explanation], bytes]]] = {
    "text": explanation_to_text,
    "json": explanation_to_json,
}
