"""The hash of the usage that a document is made of, for whoever wants to add it up again. Pure.

It is the SHA-256 of lines of text, one for each account, key and class with any tokens:

    account|model|served_model|tier|mode|band|class|count

ended by a newline each, in UTF-8, sorted by their bytes. `served_model` is the model itself where
the answer named none, `mode` is `online` or `batch`, `band` a place on the ladder of prompts from
0, `class` a column of `usage_daily`. Counts are of the whole period; those of 0 are left out. A
backslash or a bar in a name has a backslash before it.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable

from billing.price_book import MODE_NAMES, class_name
from meter.domain.tokens import Mode, TokenClass
from meter.usage import UsageFact

_Key = tuple[str, str, str, str, Mode, int, TokenClass]


def usage_sha256(facts: Iterable[UsageFact]) -> str:
    """Return the hash of usage, in hexadecimal; however it is cut into facts, it is the same."""
    counts: Counter[_Key] = Counter()
    for fact in facts:
        for token_class, count in fact.tokens.items():
            key = (fact.account_id, fact.model, fact.served_model, fact.tier)
            counts[*key, fact.mode, fact.band, token_class] += count
    lines = sorted(_line(key, count) for key, count in counts.items() if count)
    return hashlib.sha256(b"".join(lines)).hexdigest()


def _line(key: _Key, count: int) -> bytes:
    account_id, model, served_model, tier, mode, band, token_class = key
    names = "|".join(_escaped(it) for it in (account_id, model, served_model, tier))
    return f"{names}|{MODE_NAMES[mode]}|{band}|{class_name(token_class)}|{count}\n".encode()


def _escaped(name: str) -> str:
    return name.replace("\\", "\\\\").replace("|", "\\|")
