"""The spool: keeps sealed batches on the disk of the process that reports, until they are durable.

``python -m tokenworks.client.spool FOLDER`` says what lies in one.
"""

from tokenworks.client.spool.files import Reason, SpoolUnusable
from tokenworks.client.spool.folder import Folder, leftovers, open_slot
from tokenworks.client.spool.options import Fsync, SpoolOptions, WhenFull
from tokenworks.client.spool.spool import Spool

__all__ = [
    "Folder",
    "Fsync",
    "Reason",
    "Spool",
    "SpoolOptions",
    "SpoolUnusable",
    "WhenFull",
    "leftovers",
    "open_slot",
]
