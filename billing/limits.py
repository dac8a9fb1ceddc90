"""Every bound of what billing reads from files, with its reason; the meter's have their own page.

Whoever writes a file sets the installation's prices, so these bounds are against accidents and
hold a reading to seconds.
"""

from typing import Final

from meter.domain.limits import ACCOUNT_CHARS_MAX, ACCOUNT_DEPTH_MAX

ID_CHARS_MAX: Final = 64
SERIES_CHARS_MAX: Final = 32
TEXT_CHARS_MAX: Final = 200
ADDRESS_LINES_MAX: Final = 10
TERMS_DAYS_MAX: Final = 365
BANK_LINES_MAX: Final = 10
CHARGES_MAX: Final = 100
UNIT_CHARS_MAX: Final = 32
# A month is closed five days after its end, whoever is waited for.
COLLECT_HOURS_MAX: Final = 120
COVER_CHARS_MAX: Final = ACCOUNT_DEPTH_MAX * (ACCOUNT_CHARS_MAX + 1) + len("id:")

# What stands on documents and beside them: why, how a bank calls it, how much in plain digits.
REASON_CHARS_MAX: Final = 500
NAME_CHARS_MAX: Final = 64
AMOUNT_CHARS_MAX: Final = 24

# Keys and names of the models of a book; those with a `*` are compared pair by pair.
NAMES_MAX: Final = 5_000
PATTERNS_MAX: Final = 500
# Windows and overrides are compared pair by pair, and so are the models that all of them list.
WINDOWS_MAX: Final = 50
OVERRIDES_MAX: Final = 200
MODELS_LISTED_MAX: Final = 200
