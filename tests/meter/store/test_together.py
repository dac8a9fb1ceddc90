"""What every server of an installation does on its own, done by two of them at once."""

from concurrent.futures import ThreadPoolExecutor
from random import Random

from sqlalchemy import Engine

from meter.producers import Presence
from meter.store.producers import ProducerStore
from tests.meter.store.recording import (
    INSTANCE,
    WAIT_SECONDS_MAX,
    ask_one,
    claiming,
    commit,
    now_ms,
    open_producer,
    owner,
)

_SERVERS = (0, 1)
_CLAIMS = 200
_PRODUCERS = 20
_ROUNDS = 10


def test_forget__claims(engine: Engine, database_url: str) -> None:
    """Each claim that is old is deleted once, whoever does it, and nobody waits in a circle."""
    stores = [owner(engine, shard=shard) for shard in _SERVERS]
    commit(stores[0], claiming(*((number, 1) for number in range(_CLAIMS))))
    with ThreadPoolExecutor(len(stores)) as pool:
        forgotten = [pool.submit(store.forget_claims, before_ms=now_ms() + 1) for store in stores]
        assert sum(it.result(WAIT_SECONDS_MAX) for it in forgotten) == _CLAIMS
    assert ask_one(database_url, "SELECT count(*) FROM event_claims") == 0


def test_presence__of_the_same_producers(engine: Engine, database_url: str) -> None:
    """Two servers that heard the same producers write both; the highest number announced stays."""
    journal = owner(engine)
    names = [f"p{number}" for number in range(_PRODUCERS)]
    for name in names:
        open_producer(journal, name)

    def write(server: int) -> None:
        for turn in range(_ROUNDS):
            shuffled = Random(server * _ROUNDS + turn).sample(names, len(names))
            ProducerStore(engine).write_presences(
                [
                    Presence(
                        account_id="acme",
                        producer=name,
                        instance=INSTANCE,
                        announced_sequence=turn * len(_SERVERS) + server + 1,
                        heard_seconds=0.0,
                    )
                    for name in shuffled
                ]
            )

    with ThreadPoolExecutor(len(_SERVERS)) as pool:
        for writing in [pool.submit(write, server) for server in _SERVERS]:
            writing.result(WAIT_SECONDS_MAX)
    # Whoever was passed over, since the other one wrote at that moment, is told again.
    for server in _SERVERS:
        write(server)
    lowest = "SELECT min(announced_sequence) FROM producers"
    assert ask_one(database_url, lowest) == _ROUNDS * len(_SERVERS)
