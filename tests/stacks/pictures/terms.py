"""What the made-up factory is described by, and what is agreed with its customers, as files."""

from tests.stacks.pictures.world import BOARD_COUNT, CUSTOMERS, MODELS, POOLS

BOOK = """
format   = 1
book     = "tiers"
from     = 2026-07-01T00:00:00
zone     = "UTC"
currency = "USD"
missing  = "hold"
[models."*"]
tier.free    = { all = "0" }
tier.medium  = { input = "0.40", cache_read = "0.04", output = "1.60" }
tier.high    = { input = "1.20", cache_read = "0.12", output = "6.00" }
tier.premium = { input = "5.00", cache_read = "0.50", output = "45.00" }
tier.ultra   = { input = "15.00", cache_read = "1.50", output = "150.00" }
"""
_SITES = """
format = 1
from = 2026-07-01T00:00:00Z
[sites.oslo]
contracted_watts = 14_000
pue = "1.20"
reserved_watts = { premium = 2_500, high = 3_500 }
carbon = { location = "29", market = "512", source = "made up" }
[sites.reno]
contracted_watts = 13_500
pue = "1.24"
reserved_watts = { ultra = 2_000, premium = 2_500 }
carbon = { location = "386", market = "30", source = "made up" }
"""


def describe() -> str:
    """The description of the factory: what it is, and what tokens of each model weigh."""
    pools = "".join(
        f"""
[pools.{name}]
site = "{pool.site}"
hardware = "{pool.hardware}"
device_count = {BOARD_COUNT}
idle_watts = "{pool.idle_watts}"
idle = "unattributed"
"""
        for name, pool in POOLS.items()
    )
    weights = "".join(
        f"""
[[weights]]
model = "{model}"
input = "0"
cached_input = "0"
output = "{joules}"
source = "made up"
"""
        for model, joules in {model: joules for model, joules, _ in MODELS.values()}.items()
    )
    return _SITES + pools + weights


def contract(account: str) -> str:
    """The contract of a customer."""
    name = account.replace("-", " ").title()
    return f"""
format   = 1
contract = "{account}-2026"
from     = 2026-08-01T00:00:00
zone     = "UTC"
currency = "USD"
book     = "tiers"
covers   = ["{account}"]
seller   = "factory"
buyer    = "buyer"
[parties.factory]
name    = "The Token Factory, Inc. (simulated)"
address = ["1 Substation Road"]
[parties.buyer]
name    = "{name} (simulated)"
address = ["2 Street"]
[document]
kind       = "invoice"
series     = "TW"
terms_days = 30
"""


ACCOUNTS = tuple(CUSTOMERS)
