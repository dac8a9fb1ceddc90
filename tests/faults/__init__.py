"""Faults made on purpose, with real processes, and a ledger of what became of every event.

`make faults` runs each row: a meter, a Postgres with fsync on, a few reporting processes under
steady load, one fault in the midst, and then the question whether truth = journal = usage =
invoice. See docs/operating/faults.md.
"""
