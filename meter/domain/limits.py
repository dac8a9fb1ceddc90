"""Every bound of the meter, with its unit and its reason. Relations are asserted below."""

from typing import Final

# One request's tokens of one class. A model's window is about a million; a batch job's summary
# event may be a thousand times that. Fits a signed 32-bit journal column.
TOKEN_COUNT_MAX: Final = 1_000_000_000

# Events of one stream batch. Ten thousand make the cost of a message vanish; more only adds delay.
BATCH_EVENTS_MAX: Final = 10_000
# Distinct dimensions of one stream batch: never more than it has events.
BATCH_DIMENSIONS_MAX: Final = 10_000
# Events of one RecordUsage call: each costs a claim in an index, and the caller waits.
RECORD_EVENTS_MAX: Final = 1_000
# Reports of requests that a call has worked on at a time: some ten milliseconds of the loop's time.
OBSERVED_AT_ONCE_MAX: Final = 1_000
# Requests with reports that wait which are looked at together, corrections of them that are made at
# a time, and reports of one request that are compared; those after them are evidence.
ARBITRATED_AT_ONCE_MAX: Final = 200
ARBITRATED_CORRECTIONS_MAX: Final = 20
REQUEST_REPORTS_MAX: Final = 1_000
# One gRPC message: a batch of 10,000 events with 10,000 long dimensions stays below.
MESSAGE_BYTES_MAX: Final = 4 * 1024 * 1024
# gRPC metadata of one call.
METADATA_BYTES_MAX: Final = 8 * 1024

# The body of a report by HTTP, as it came and unpacked: as much as one message of gRPC.
HTTP_BODY_BYTES_MAX: Final = MESSAGE_BYTES_MAX
# LiteLLM's records are 10 KB each, without prompts, and come by 512; it drops what is too large.
LITELLM_BODY_BYTES_MAX: Final = 4 * MESSAGE_BYTES_MAX
# How long it may take to arrive, and its answer to be made.
HTTP_BODY_SECONDS_MAX: Final = 30.0
HTTP_ANSWER_SECONDS_MAX: Final = 60.0
# Requests by HTTP that are served at a time, each on a thread; of them reports, and those of one
# API key: scrapes and probes find room, and nobody's slow body keeps the others out.
HTTP_REQUESTS_AT_ONCE_MAX: Final = 256
HTTP_REPORTS_AT_ONCE_MAX: Final = 64
HTTP_KEY_REPORTS_AT_ONCE_MAX: Final = 32

# Streams and calls of one connection at a time. A client of ours has one stream on each.
CONNECTION_STREAMS_MAX: Final = 128

# Reports held in memory for senders who hear no answer, while they cannot be recorded: a kilobyte
# each, and a minute of a busy gateway.
HELD_REPORTS_MAX: Final = 50_000
# What one API key may take of one server, so that no sender holds up the others for long.
# Streams: the loop serves those that have something to say in turn, some 0.1 ms each.
KEY_STREAMS_MAX: Final = 4_096
# Streams that are opened, or ended, by one transaction, which holds their producers meanwhile.
OPENINGS_TOGETHER_MAX: Final = 256
# Those of them that others hold at a time: each waits for that on a thread, which serves others.
OPENINGS_ALONE_MAX: Final = 4
# Streams that it opens in a second, each some rows for good, once it has opened as many as it may
# have: after a server's start all of them come back at once.
KEY_OPENINGS_SECOND_MAX: Final = 50
# Of them at a time: others find room in the transaction that opens them.
KEY_OPENINGS_AT_ONCE_MAX: Final = OPENINGS_TOGETHER_MAX // 2
# Calls that are worked on at a time, and those that wait for it.
KEY_CALLS_AT_ONCE_MAX: Final = 128
KEY_CALLS_WAITING_MAX: Final = 1_024
# Calls of so few events are taken together, and how long they wait for each other at most.
GATHERED_CALL_EVENTS_MAX: Final = 10
GATHERED_SECONDS_MAX: Final = 0.01
# Events of one key's calls that are worked on at a time: each costs a claim in an index, of which
# the database makes a hundred thousand a second.
KEY_EVENTS_AT_ONCE_MAX: Final = 20_000
# Dimensions that the installation has never heard of: a fleet's on its first day at once, a day's
# of new customers in a few minutes. Each is a row for good.
KEY_DIMENSIONS_BURST_MAX: Final = 100_000
KEY_DIMENSIONS_MINUTE_MAX: Final = 10_000
# Batches of one producer in a second. It may put ten thousand events into each.
PRODUCER_BATCHES_SECOND_MAX: Final = 2_000
# Producers of one account's keys that are expected; those that ended in good order do not count.
ACCOUNT_PRODUCERS_MAX: Final = 100_000
# How long who goes too fast is held back before it is refused: a refusal costs work, too.
HOLD_SECONDS_MAX: Final = 5.0
# Keys whose bounds are remembered before those that are at rest are forgotten.
KEYS_BOUNDED_MAX: Final = 10_000

# Batches that a producer may send ahead of its acks.
BATCHES_IN_FLIGHT_MAX: Final = 16
# Digests of a producer's last batches. An older repeat cannot be compared, and is sent back.
DIGESTS_KEPT: Final = 32
# The highest batch number: whole in every language's JSON. A thousand a second take 285,000 years.
SEQUENCE_MAX: Final = 2**53 - 1
# How far a producer may say that it is ahead of what is recorded, and how many numbers are lost if
# it says so and vanishes. A spool of 1 GiB with a batch of 20 bytes a number holds half of it.
SEQUENCES_AHEAD_MAX: Final = 100_000_000
# Set-aside events that an ack lists by name; the rest is only counted.
SET_ASIDE_LISTED_MAX: Final = 100

# Token classes in one batch, known or not: a column is made for each.
BATCH_CLASSES_MAX: Final = 64
# Serialised dimensions that are remembered by their bytes; longer ones are read each time.
DIMENSIONS_BYTES_REMEMBERED: Final = 2_048

# Strings, in characters.
ACCOUNT_CHARS_MAX: Final = 64
MODEL_CHARS_MAX: Final = 128
POOL_CHARS_MAX: Final = 64
REGION_CHARS_MAX: Final = 64
TIER_CHARS_MAX: Final = 32
EVENT_ID_CHARS_MAX: Final = 64
REQUEST_ID_CHARS_MAX: Final = 128
PRODUCER_CHARS_MAX: Final = 64
DESCRIPTION_CHARS_MAX: Final = 200
INSTANCE_BYTES: Final = 16
EVENT_ID_BYTES: Final = 16

DURATION_MS_MAX: Final = 7 * 24 * 3600 * 1000
ATTEMPT_MAX: Final = 1_000
# Events from a clock that runs ahead would land in a later interval: five minutes cover bad NTP.
FUTURE_MS_MAX: Final = 5 * 60 * 1000
# How late an event may come: a month and a few days, so that last month's can still be repaired.
LATE_MS_MAX: Final = 35 * 24 * 3600 * 1000
# Event ids are remembered longer than a late event can be repeated.
CLAIM_KEPT_MS: Final = LATE_MS_MAX + FUTURE_MS_MAX + 24 * 3600 * 1000

# A group commit that takes so long is named in the log; usual are milliseconds.
COMMIT_SECONDS_SLOW: Final = 1.0
# Calls that ended in an error, by lines of the log in a second: whoever is refused a thousand times
# a second does not fill a disk.
REFUSALS_LOGGED_MAX: Final = 20

# Spans of one group commit: each call of it that is traced has one, up to here.
GROUP_SPANS_MAX: Final = 128

# How far one call moves a sandbox's clock, which never goes back: a wrong year is refused, a
# quarter of a year with its late events is not.
CLOCK_ADVANCE_MS_MAX: Final = 100 * 24 * 3600 * 1000
# How long that clock waits at a midnight for what was acknowledged before it to be counted.
CLOCK_COUNTED_SECONDS_MAX: Final = 60.0

# One group commit: bounded so that one fsync never holds up more than this much work.
GROUP_EVENTS_MAX: Final = 400_000
GROUP_SUBMISSIONS_MAX: Final = 4_096
# The buffer's last part, one of so many, is kept for senders that hold less than such a part of it.
BUFFER_KEPT_PARTS: Final = 8
# What was committed and is held to be counted from memory, in bytes; what is more is read back. Two
# seconds of seven million events each, at 16 bytes.
FRESH_BYTES_MAX: Final = 256 * 1024 * 1024
# Events of one segment; a head that tells of more is damaged, and would take all memory.
SEGMENT_EVENTS_MAX: Final = 2_000_000
# How long a server holds its shard of the journal without renewing, which it does twice a second.
LEASE_SECONDS: Final = 4
# Shards that there may be: as many as ever were servers at a time, and those of who died just then.
SHARDS_MAX: Final = 1_024
# A transaction of the journal between two statements: longer is a server that hangs, whose locks
# the others wait for; and of counting, which adds up two million events there.
JOURNAL_IDLE_SECONDS_MAX: Final = 5
COUNTING_IDLE_SECONDS_MAX: Final = 15
# Distinct dimensions kept resolved in memory before the table starts anew.
DIMENSIONS_INTERNED_MAX: Final = 1_000_000
# Rows of one QueryUsage or QueryEfficiency answer.
QUERY_ROWS_MAX: Final = 100_000

# Producers whose last sign of life is a metric of its own, the longest silent first.
SEEN_METRICS_MAX: Final = 1_000
# Label sets of one metric that have all their names: 20 models on 20 pools at 5 tiers in 4 classes.
# Prometheus keeps some KiB of each in memory.
SERIES_MAX: Final = 8_000
# Events of a round of counting whose lag is looked at: quantiles need no more, and a round has up
# to two million.
LAG_SAMPLES_MAX: Final = 10_000
# Streams whose presence is written by one statement.
PRESENCE_ROWS_MAX: Final = 5_000
# Gaps that ListProducers shows of one producer, the newest; all are in its sum.
GAPS_LISTED_MAX: Final = 10

# Exporters of energy counters that one meter reads: a hall of racks of one each.
ENERGY_SOURCES_MAX: Final = 256
# Of them at a time: each read costs a thread, which mostly waits.
ENERGY_READS_AT_ONCE_MAX: Final = 16
# The whole of one read, from connecting to the last byte. An exporter answers from its memory.
ENERGY_READ_SECONDS_MAX: Final = 5.0
# One exporter's page. A node of 16 GPUs with every field switched on stays below 1 MiB.
ENERGY_PAGE_BYTES_MAX: Final = 8 * 1024 * 1024
# One line of it. With all of a pod's labels they have some hundred characters; the time that the
# parser takes grows with the square.
ENERGY_LINE_CHARS_MAX: Final = 4_096
# Devices of one page: an exporter sees a node's, or a rack's, not more.
ENERGY_PAGE_DEVICES_MAX: Final = 1_024
# Engines whose own counters one meter reads: each replica has a page.
ENGINES_MAX: Final = 1_024
# Token counters of one page: two for each model and rank.
ENGINE_PAGE_SERIES_MAX: Final = 1_024
# Tokens of one counter, which engines keep as a binary fraction: beyond it they are not whole.
ENGINE_TOKENS_MAX: Final = 2**53
# Tokens that one counter never gains in a millisecond, a thousand times what the fastest do: more
# is a counter that was another's before.
ENGINE_TOKENS_PER_MS_MAX: Final = 10_000
# How long after its end an hour or a day is compared: until then usage is still reported.
ENGINE_SETTLE_MS: Final = 10 * 60 * 1000
# Time that one question about drift spans, and the rows of its answer.
ENGINE_DRIFT_MS_MAX: Final = 400 * 24 * 3600 * 1000
ENGINE_DRIFT_ROWS_MAX: Final = 10_000
# How long what engines counted is kept: a day of a replica is some 200 rows, whoever reports.
ENGINE_KEPT_MS: Final = ENGINE_DRIFT_MS_MAX
# Readings of one RecordEnergy call: each locks a row, and the caller waits.
RECORD_READINGS_MAX: Final = 1_000
# An accelerator's name: NVIDIA's UUIDs have 40 characters, with the part of a board (MIG) 60.
DEVICE_CHARS_MAX: Final = 64
# A serving software's name with its version.
SOFTWARE_CHARS_MAX: Final = 64
# A counter in mJ: a megawatt takes 146 years. DCGM writes "no value" as numbers just below 2**63.
COUNTER_MJ_MAX: Final = 2**62
# What a scraped board never draws, several times what the largest do: more is no energy but a
# counter of something else, or of another board.
BOARD_WATTS_MAX: Final = 10_000
# The same of a reported device, which may be a whole rack.
DEVICE_WATTS_MAX: Final = 1_000_000
# The same of a site's meter, of which a campus has several.
FACILITY_WATTS_MAX: Final = 100_000_000
# What a reading says that its device draws: of no device it is more.
POWER_MW_MAX: Final = FACILITY_WATTS_MAX * 1_000
# How much older than its reading a counter may be: an exporter keeps what it collected for half a
# minute.
COUNTER_SLACK_MS: Final = 60_000
# Scraped samples leave a gap when they lie this many scrapes apart, or as many of the exporters'
# own collections where these are rarer, but none below a minute.
GAP_SCRAPES: Final = 4
GAP_MS_MIN: Final = 60_000
# The window of the recording rules' rates. It has to hold as many samples, or rates are absent now
# and then, and wrong at its edges.
RATE_WINDOW_SECONDS: Final = 300
# A counter that leapt, or a device that two claim, is held against its pool for so long.
FAULT_SEEN_MS: Final = 900_000
# Boards whose gauges are held against their counters: a large hall's; each takes a kilobyte or two.
CROSS_CHECK_DEVICES_MAX: Final = 20_000
# A device that is silent for longer was taken out: it no longer makes its pool's power invalid.
DEVICE_KNOWN_MS: Final = 6 * 3600 * 1000
# A counter that is silent for longer begins anew, its energy unknown: a week's intervals of a large
# pool are still written in one transaction.
COUNTER_KEPT_MS: Final = 7 * 24 * 3600 * 1000
# Pools' intervals that are attributed in one transaction.
ATTRIBUTE_INTERVALS_MAX: Final = 500
# Silent devices that ListEnergySources names; the rest is only counted.
SILENT_LISTED_MAX: Final = 100
# Sites, and pools, of one factory's description; and devices that a pool of it lists by name.
FACTORY_NAMES_MAX: Final = 1_000
FACTORY_DEVICES_MAX: Final = 1_000
# What a site's contract may allow: a thousand gigawatts are no site.
SITE_WATTS_MAX: Final = 10**12
# The worst sites need twice their machines' energy.
PUE_MAX: Final = 10
# What a token may weigh: only ratios matter, and sums of weights of a year stay short numbers.
WEIGHT_MAX: Final = 1_000_000
# Rows of usage whose energy is attributed in one transaction, or those of one interval.
ATTRIBUTE_USAGE_MAX: Final = 100_000
# How many times as long as it took is waited before intervals are attributed anew once more: each
# time writes a row for most keys, however few tokens came late. Never longer than an interval.
ATTRIBUTE_PAUSE_TIMES: Final = 20
ATTRIBUTE_PAUSE_SECONDS_MAX: Final = 900.0
# Depth of the tree of accounts.
ACCOUNT_DEPTH_MAX: Final = 16

# A TOML file that a person has written; a price book of some thousand models has less than half.
FILE_CHARS_MAX: Final = 1024 * 1024
# Brackets in brackets, and parts of a dotted key: `models.x.tier.y.above` has five.
NESTING_MAX: Final = 8
# Faults that are listed; the rest is only counted.
FAULTS_MAX: Final = 100
# What a message quotes of a file, in characters.
QUOTE_CHARS_MAX: Final = 64
# Digits of a number in a file, on each side of the point: products of a price and its factors stay
# far below a context's thousand digits.
DIGITS_MAX: Final = 30
# A name of a header, an attribute or a field in the file of sources; and a name of somebody else's
# that stands for an account here.
PLACE_CHARS_MAX: Final = 200
SOURCE_NAME_CHARS_MAX: Final = 256
# Entries of one list in a file.
LIST_ENTRIES_MAX: Final = 1_000

assert TOKEN_COUNT_MAX < 2**31
assert HTTP_KEY_REPORTS_AT_ONCE_MAX < HTTP_REPORTS_AT_ONCE_MAX < HTTP_REQUESTS_AT_ONCE_MAX
assert BATCH_DIMENSIONS_MAX <= BATCH_EVENTS_MAX
assert DIGESTS_KEPT >= 2 * BATCHES_IN_FLIGHT_MAX, "a go-back may repeat all that is in flight"
assert CLAIM_KEPT_MS > LATE_MS_MAX + FUTURE_MS_MAX
assert GROUP_EVENTS_MAX >= BATCH_EVENTS_MAX
assert SEGMENT_EVENTS_MAX >= GROUP_EVENTS_MAX
assert KEY_EVENTS_AT_ONCE_MAX >= RECORD_EVENTS_MAX, "a call has a turn"
assert SEGMENT_EVENTS_MAX * TOKEN_COUNT_MAX < 2**63, "a sum of one segment fits 64 bits"
assert COUNTER_KEPT_MS > DEVICE_KNOWN_MS, "a device that is known has its counter"
