"""The hash of the usage that a document is made of, for whoever wants to add it up again. Pure.

It is the SHA-256 of lines of text, one for each account, key and class with any tokens:

    account|model|served_model|tier|mode|band|class|count

ended by a newline each, in UTF-8, sorted by their bytes. `served_model` is the model itself where
the answer named none, `mode` is `online` or `batch`, `band` a place on the ladder of prompts from
0, `class` a column of `usage_daily`. Counts are of the whole period; those of 0 are left out. A
backslash or a bar in a name has a backslash before it.
"""

import hashlib
from collections.abc import Iterable

from billing.price_book import MODE_NAMES, class_name
from meter.domain.tokens import TokenClass
from meter.usage import UsageFact


def usage_sha256(facts: Iterable[UsageFact]) -> str:
    """Return the hash of usage, in hexadecimal; however it is cut into facts, it is the same."""
    counts: dict[tuple[str, TokenClass], int] = {}
    for fact in facts:
        names = (fact.account_id, fact.model, fact.served_model, fact.tier)
        key = "|".join(map(_escaped, names)) + f"|{MODE_NAMES[fact.mode]}|{fact.band}|"
        for token_class, count in fact.tokens.items():
            counts[key, token_class] = counts.get((key, token_class), 0) + count
    lines = sorted(
        f"{key}{class_name(token_class)}|{count}\n".encode()
        for (key, token_class), count in counts.items()
        if count
    )
    return hashlib.sha256(b"".join(lines)).hexdigest()


def _escaped(name: str) -> str:
    if "|" in name or "\\" in name:
        return name.replace("\\", "\\\\").replace("|", "\\|")
    return name
