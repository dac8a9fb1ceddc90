"""What can be wrong with a book and its prices, each with its line and the way out."""

import pytest

from tests.billing.terms import book_text, cases, check_book_faults

BOOK_FAULTS = r"""
surprise = 1  #! surprise: no such key; here are format, book, from
---
format = 2  #! format: must be 1, the only format so far
---
format = "1"  #! format: must be 1
---
format = true  #! format: must be 1
---
format = 1.0  #! format: must be 1
---
missing = "zero"  #! missing: must be "hold": what has no price holds the invoice
---
missing = 0  #! missing: must be
---
book = ""  #! book: is empty
---
book = "a b"  #! book: is "a b", and must match
---
book = "-a"  #! book: must match
---
book = "a\u0000"  #! book: cannot be printed
---
book = 1  #! book: is a number, and must be a text
---
zone = "Europe/Berlim"  #! zone: "Europe/Berlim" is no time zone
---
zone = "right/UTC"  #! zone: is no time zone
---
zone = "../../etc/passwd"  #! zone: is no time zone
---
zone = 1  #! zone: must be a text
---
currency = 1  #! currency: must be a text
---
from = 2026-10-01T00:00:00+02:00  #! from: has an offset; leave it off
---
from = 2026-10-01T00:00:00Z  #! from: has an offset
---
from = 2026-10-01  #! from: is a date or a time, and must be a date with a time
---
from = "2026-10-01T00:00:00"  #! from: is a text, and must be a date with a time, without
---
from = 10:00:00  #! from: must be a date with a time
---
from = 2026-10-01T00:07:00  #! from: are 2026-10-01T00:00:00 and 2026-10-01T00:15:00
---
from = 2026-10-01T00:00:00.5  #! from: not on a 15-minute edge
---
from = 2026-10-01T00:00:00.000001  #! from: not on a 15-minute edge
---
from = 1979-10-01T00:00:00  #! from: 1980 to 2200
---
zone = "Europe/Berlin"
from = 2026-03-29T02:30:00  #! from: does not exist in Europe/Berlin: the clocks went
---
same = { input = "input" }  #! same.input: leave it out
---
same = { words = "input" }  #! same.words: "words" is no token class; there are input
---
same = { input = "words" }  #! same.input: "words" is no token class
---
same = { input = "all" }  #! same.input: "all" is no token class
---
same = { input = 1 }  #! same.input: must be a text
---
same = "output"  #! same: is a text, and must be a table
---
[same]
reasoning = "output"  #! same.reasoning: output is priced as another class itself
output = "input"
---
[same]
reasoning = "output"  #! same.reasoning: priced as another class itself
output = "reasoning"  #! same.output: priced as another class itself
---
tiers = {}  #! tiers: is empty
---
tiers = { gold = "1" }  #! tiers.gold: is no tier that is sold here; there are free, medium
---
tiers = { High = "1" }  #! tiers.High: no tier that is sold here
---
tiers = { high = 1 }  #! tiers.high: must be a string to be exact: "1"
---
tiers = { high = "-1" }  #! tiers.high: is negative
---
tiers = ["high"]  #! tiers: is a list, and must be a table
---
modes = { live = "1" }  #! modes.live: no such key; here are online, batch
---
modes = { batch = 0.5 }  #! modes.batch: must be a string to be exact: "0.5"
"""


@pytest.mark.parametrize(
    "body",
    [
        *cases(BOOK_FAULTS),
        f'book = "{"a" * 65}"  #! book: more than 64 characters',
        *(
            f'currency = "{code}"  #! currency: "{code}" is no currency that can be paid in'
            for code in ("XAU", "XXX", "XTS", "usd", "DEM", "dollar")
        ),
    ],
)
def test_read_book__fault_of_the_book(body: str) -> None:
    """What is wrong at the top of a book is told with its line, its place and the way out."""
    check_book_faults(book_text(body))


PRICE_FAULTS = r"""
models = {}  #! models: is empty
---
models = 1  #! models: must be a table
---
[models]
m = 1  #! models.m: is a number, and must be a table
---
[models.m]  #! models.m: has no price; write one
---
[models.m]  #! models.m: has no price
names = ["n"]
---
[models.m]
tier = {}  #! models.m.tier: is empty
---
[models.m]
tier.high = {}  #! models.m.tier.high: has no price
---
[models.m]
tier.gold = { all = "1" }  #! models.m.tier.gold: no tier that is sold here
---
[models.m.tier.high]  #! models.m.tier.high: has no price
word = "1"  #! models.m.tier.high.word: no such key
---
[models.m]
tier.high = { names = ["n"], all = "1" }  #! models.m.tier.high.names: no such
---
[models.m]
tier.high = "1"  #! models.m.tier.high: must be a table
---
[models.m]
input = 1.40  #! models.m.input: to be exact: "1.40"
---
[models.m]
input = 3  #! models.m.input: to be exact: "3"
---
[models.m]
all = -1.40  #! models.m.all: is a number, and must be a string
---
[models.m]
input = "-1.40"  #! models.m.input: is negative
---
[models.m]
input = "1e3"  #! models.m.input: no exponent
---
[models.m]
input = nan  #! models.m.input: is a number
---
[models.m]
input = "NaN"  #! models.m.input: no plain decimal
---
[models.m]
input = ""  #! models.m.input: no plain decimal
---
[models.m]  #! models.m: has no price
words = "1"  #! models.m.words: no such key; here are input, cache_read
---
[models.m]
prompt = 32_000  #! models.m.prompt: no such key
all = "1"
---
[models.m]
above = []  #! models.m.above: is empty
---
[models.m]
above = "32k"  #! models.m.above: must be a list
---
[models.m]
above = [1]  #! models.m.above[0]: must be a table
---
[[models.m.above]]  #! models.m.above[0].prompt: is missing
all = "1"
---
[[models.m.above]]  #! models.m.above[0]: has no price
prompt = 32_000
---
[[models.m.above]]
all = "1"
prompt = 200_001  #! models.m.above[0].prompt: one of 32_000, 64_000, 128_000, 200_000, 25
---
[[models.m.above]]
all = "1"
prompt = 0  #! models.m.above[0].prompt: one of
---
[[models.m.above]]
all = "1"
prompt = "32_000"  #! models.m.above[0].prompt: one of
---
[[models.m.above]]
all = "1"
prompt = 32000.0  #! models.m.above[0].prompt: one of
---
[[models.m.above]]
prompt = 32_000
all = 1  #! models.m.above[0].all: exact: "1"
---
[[models.m.above]]
prompt = 64_000
all = "1"
[[models.m.above]]
prompt = 32_000
all = "1"
[[models.m.above]]  #! models.m.above[2]: the prompt of line 6 again: 64_000
prompt = 64_000
all = "2"
---
[[models.m.above]]
prompt = 32_000
all = "1"
tier.high = { all = "1" }  #! models.m.above[0].tier: no such key
---
[models.m]
all = "1"
tier.high = { all = "1", above = [
{ prompt = 32_000, all = "1" },
{ prompt = 32_000, all = "1" }] }  #! models.m.tier.high.above[1]: of line 9 again
"""


@pytest.mark.parametrize(
    "body",
    [*cases(PRICE_FAULTS)],
)
def test_read_book__fault_of_prices(body: str) -> None:
    """What is wrong with a model's prices is told with its line, its place and the way out."""
    check_book_faults(book_text(body))
