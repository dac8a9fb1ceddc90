"""The closed sets of the wire as Python enumerations; numbers are those of the protocol."""

from enum import IntEnum, StrEnum


class TokenClass(IntEnum):
    """A kind of token that is counted apart. Classes are disjoint."""

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


class Mode(IntEnum):
    """How the request was served."""

    ONLINE = 1
    BATCH = 2


class Finish(IntEnum):
    """How the request ended."""

    COMPLETED = 1
    TRUNCATED = 2
    CANCELLED = 3
    FAILED = 4


class Quality(IntEnum):
    """How sure the counts are."""

    FINAL = 1
    PARTIAL = 2
    ESTIMATED = 3


class Source(StrEnum):
    """Who reports through a client, where others may report the same requests."""

    PROXY = "proxy"
    """The server that the callers speak to."""
    LITELLM = "litellm"
    """LiteLLM, by its callback."""
    ASGI = "asgi"
    """A middleware in the server that runs inference."""


class State(StrEnum):
    """Where a client stands with its meter."""

    IDLE = "idle"
    """Nothing was recorded yet, so nothing was opened."""
    CONNECTING = "connecting"
    """A connection is on its way."""
    STREAMING = "streaming"
    """Batches flow."""
    WAITING = "waiting"
    """The meter is away: everything is kept, the next attempt follows by itself."""
    REFUSED = "refused"
    """The meter refuses this client, say for its API key: everything is kept, retried slowly."""
    TAKEN_OVER = "taken_over"
    """A newer process reports under this producer's name: this one has stopped for good."""
    CLOSED = "closed"
    """`close` was called."""
    FAILED = "failed"
    """A fault of the client itself; the log has it."""
