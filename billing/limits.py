"""Every bound of what billing reads from files, with its reason; the meter's have their own page.

Whoever writes a file may administer the installation, so these bounds are against accidents and
hold a reading to seconds.
"""

from typing import Final

from meter.domain.limits import ACCOUNT_CHARS_MAX, ACCOUNT_DEPTH_MAX

# A book of some thousand models has less than half of that.
FILE_CHARS_MAX: Final = 1024 * 1024
# Brackets in brackets, and parts of a dotted key: `models.x.tier.y.above` has five.
NESTING_MAX: Final = 8
# Faults that are listed; the rest is only counted.
FAULTS_MAX: Final = 100
# What a message quotes of a file, in characters.
QUOTE_CHARS_MAX: Final = 64

# Digits on each side of the point: products of a price and its factors stay far below a context's
# thousand digits.
DIGITS_MAX: Final = 30
ID_CHARS_MAX: Final = 64
SERIES_CHARS_MAX: Final = 32
TEXT_CHARS_MAX: Final = 200
ADDRESS_LINES_MAX: Final = 10
TERMS_DAYS_MAX: Final = 365
COVER_CHARS_MAX: Final = ACCOUNT_DEPTH_MAX * (ACCOUNT_CHARS_MAX + 1) + len("id:")

# Entries of one list.
LIST_ENTRIES_MAX: Final = 1_000
# Keys and names of the models of a book; those with a `*` are compared pair by pair.
NAMES_MAX: Final = 5_000
PATTERNS_MAX: Final = 500
# Windows and overrides are compared pair by pair, and so are the models that all of them list.
WINDOWS_MAX: Final = 50
OVERRIDES_MAX: Final = 200
MODELS_LISTED_MAX: Final = 200
