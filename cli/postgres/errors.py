"""What can go wrong with a Postgres of our own."""


class PostgresError(Exception):
    """Postgres could not be found, started or stopped; the message says why and what to do."""


class PortTakenError(PostgresError):
    """Another program listens on the port that was asked for."""
