"""Every bound of the client, with its unit and its reason."""

from typing import Final

INT32_MIN: Final = -(2**31)
INT32_MAX: Final = 2**31 - 1
INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1

# The wire's own bound: at most so many events, and so many distinct dimensions, in a batch.
BATCH_EVENTS_MAX: Final = 10_000

# Half of the 4 MiB that a gRPC server takes by default, so that framing and growth never matter.
BATCH_BYTES_MAX: Final = 2 * 1024 * 1024

# Four times the longest string that the meter accepts (128). What is longer is cut to this: still
# too long for the meter, which therefore keeps the event in quarantine, yet bounded in memory.
STRING_CHARACTERS_MAX: Final = 512

# The years 1 to 9999, in milliseconds since 1970: what a Timestamp can hold.
TIME_MS_MIN: Final = -62_135_596_800_000
TIME_MS_MAX: Final = 253_402_300_799_999

# Events whose ends lie in one such span (12.4 days) have offsets that fit 32 bits.
TIME_SPAN_MS: Final = 2**30

# Serialised dimensions kept for reuse, about 200 bytes each: room for 1,000 accounts by 4 models
# by 5 tiers three times over.
DIMENSIONS_CACHED_MAX: Final = 65_536

# What an event takes once encoded is 10 to 100 bytes, so the default is worth 5 to 50 MB.
BUFFER_EVENTS_DEFAULT: Final = 500_000

# How long an event may wait for others to share its batch.
FLUSH_INTERVAL_SECONDS_DEFAULT: Final = 0.2

# The meter allows one heartbeat a second. When nothing is held a slow one only proves the peer.
HEARTBEAT_SECONDS_MIN: Final = 1.0
HEARTBEAT_IDLE_SECONDS: Final = 10.0

# A connection on which nothing was heard for so long is cut and opened anew.
SILENCE_SECONDS_MAX: Final = 30.0

# Waits between attempts: doubling from the first to the second while the meter is away, the third
# while it refuses us (a wrong key does not heal within seconds).
RETRY_SECONDS_MIN: Final = 0.1
RETRY_SECONDS_MAX: Final = 10.0
RETRY_REFUSED_SECONDS: Final = 15.0

# How often the files of certificates are looked at.
CERTIFICATE_SECONDS: Final = 1.0

# Longest wait that a server may ask for.
RETRY_ASKED_SECONDS_MAX: Final = 60.0

# At most one line in the log in so many seconds for events that were dropped or set aside.
LOG_INTERVAL_SECONDS: Final = 10.0

# How long close() waits by default, and how long the end of the process may be held up.
CLOSE_SECONDS_DEFAULT: Final = 10.0
EXIT_SECONDS_MAX: Final = 2.0

# How long a call may take to end once nothing is held any more.
FINISH_SECONDS_MAX: Final = 0.5

# Batches that go to disk together: one fsync for them all, and some MiB in memory at a time.
BATCHES_APPENDED_MAX: Final = 8

# Running reports at a time whose progress is followed, about 1 kB each. One that is begun beyond
# counts when it ends, like any event; its progress is not written down.
RUNNING_REPORTS_MAX: Final = 10_000

# Running reports written down at a time; the rest is at the next turn. Each costs some 30 µs of
# the interpreter's lock.
PROGRESS_WRITTEN_MAX: Final = 1_000

# How long a caller waits for its event to be on disk before it looks whether the sender lives.
DISK_WAIT_SECONDS: Final = 0.5

# What is kept of an answer while it passes, to read its usage when it has ended. Of one that is
# whole JSON some 250,000 tokens of text; of a stream, and of what is longer, its end and its begin.
# One line of a stream may be as long as a whole answer: the last one of some repeats all of it.
ANSWER_BYTES_MAX: Final = 1024**2
ANSWER_END_BYTES: Final = 8 * 1024
ANSWER_BEGIN_BYTES: Final = 4 * 1024

# The usage objects of one batch, as JSON: 400 bytes each of as many events as a batch may have. A
# batch whose objects are larger is sent in parts.
USAGE_OBJECTS_BYTES_MAX: Final = 4 * 1024**2

# A day of an outage at 1,000 events a second and some 15 bytes each; and some minutes of what is
# durable, for a meter that comes back from a backup without its latest log.
SPOOL_BYTES_MAX_DEFAULT: Final = 1024**3
SPOOL_RETAIN_BYTES_DEFAULT: Final = 64 * 1024**2

assert SILENCE_SECONDS_MAX > 2 * HEARTBEAT_IDLE_SECONDS, "one lost heartbeat must not cut a stream"
assert TIME_SPAN_MS < INT32_MAX, "an offset within a span fits 32 bits"
