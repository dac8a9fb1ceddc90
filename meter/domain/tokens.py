"""Token classes, how requests end, and the ladder of context bands."""

from enum import IntEnum
from typing import Final


class TokenClass(IntEnum):
    """Disjoint kinds of tokens; the numbers are the wire's and the journal's."""

    INPUT = 1
    CACHE_READ = 2
    CACHE_WRITE_5M = 3
    CACHE_WRITE_30M = 4
    CACHE_WRITE_1H = 5
    CACHE_WRITE_12H = 6
    OUTPUT = 7
    REASONING = 8
    AUDIO_INPUT = 20
    AUDIO_CACHE_READ = 21
    AUDIO_OUTPUT = 22
    IMAGE_INPUT = 30
    IMAGE_CACHE_READ = 31
    IMAGE_OUTPUT = 32
    VIDEO_INPUT = 40
    VIDEO_OUTPUT = 41


OUTPUT_CLASSES: Final = frozenset(
    {
        TokenClass.OUTPUT,
        TokenClass.REASONING,
        TokenClass.AUDIO_OUTPUT,
        TokenClass.IMAGE_OUTPUT,
        TokenClass.VIDEO_OUTPUT,
    }
)
PROMPT_CLASSES: Final = frozenset(TokenClass) - OUTPUT_CLASSES
# Prompt tokens that were read from a cache; those written to one took their whole energy.
CACHED_CLASSES: Final = frozenset(
    {TokenClass.CACHE_READ, TokenClass.AUDIO_CACHE_READ, TokenClass.IMAGE_CACHE_READ}
)


class Mode(IntEnum):
    """How a request was served."""

    ONLINE = 1
    BATCH = 2


class Finish(IntEnum):
    """How a request ended."""

    COMPLETED = 1
    TRUNCATED = 2
    CANCELLED = 3
    FAILED = 4


class FinishClass(IntEnum):
    """How a request ended, as usage keeps it: completed and truncated are one."""

    DELIVERED = 1
    CANCELLED = 2
    FAILED = 3


class Quality(IntEnum):
    """How sure a request's counts are."""

    FINAL = 1
    PARTIAL = 2
    ESTIMATED = 3


# Version 1 of the ladder: a prompt's total, cached tokens included, lies in the band whose upper
# edge is the first one above it. Band 0 is below 32k; band 8 is a million and more.
BAND_LADDER_VERSION: Final = 1
BAND_EDGES: Final = (32_000, 64_000, 128_000, 200_000, 256_000, 272_000, 512_000, 1_000_000)
BAND_NAMES: Final = ("<32k", "<64k", "<128k", "<200k", "<256k", "<272k", "<512k", "<1M", "≥1M")
