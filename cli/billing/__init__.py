"""`tokenworks billing close|clock`: a month's invoices, and a sandbox's time.

`close` opens the database itself unless it is told a server; `clock` asks one. Months are local to
each contract, all other times UTC.
"""

from cli.billing.command import billing

__all__ = ["billing"]
