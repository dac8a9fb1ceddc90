"""The page of who may call what, from the one table that the server asks."""

from billing.access import BILLING_ACCESS
from docs.pages.page import make_page, make_table
from meter.access import HTTP_ACCESS, METER_ACCESS, Access, Place, Rule
from meter.domain.credential import Role

_DUTIES = {
    Role.PRODUCER: "Reports usage and energy, and says which software serves.",
    Role.READER: "Asks, and changes nothing.",
    Role.ADMIN: "Keeps accounts and API keys. It can give keys any role on what it is admin of.",
    Role.BILLER: "Closes months, approves, corrects, credits and voids, records payments.",
    Role.PRICE_EDITOR: "Sets price books and contracts.",
    Role.OPERATOR: "Runs the installation: producers, quarantine, corrections of events, the"
    " factory's description, a sandbox's clock.",
}
_PLACES = {
    Place.ACCOUNT: "account",
    Place.INSTALLATION: "everything",
    Place.OWN: "own",
}
_INTRODUCTION = """\
A key has roles, each on an account and all below it, or on everything: \
`tokenworks keys create acme --role reader --role producer:acme/team`. None implies another. \
Before a service hears of a call the server looks up its row here: a call without a row is \
refused, and so is who lacks the role, with `SCOPE_MISSING`, whether the account exists or not. \
[A test](../../tests/wire/test_access.py) makes each call with each role on the account, above it, \
below it, beside it and on everything."""
_KEPT = """\
Where several roles are named, any of them will do. The role is needed

- *account*: on each account that the call is about, or above it; on everything where the request \
names none. An invoice is about all accounts that its contract covers.
- *everything*: on the whole installation. What an account's admin gives away stays within the \
account.
- *own*: anywhere; the call is about what the key's scopes cover, and an account that is named \
must be among it. Events are looked at one by one: those of accounts that the key may not report \
for are set aside as `ACCOUNT_OUT_OF_SCOPE`.

Health checks and reflection take no API key."""


def make_access_page() -> str:
    """Return the roles, and each call with those that may make it."""
    return make_page(
        "Who may call what",
        source="`meter/access.py` and `billing/access.py`",
        body=[
            _INTRODUCTION,
            make_table(("Role", "Does"), [(f"`{role.word}`", _DUTIES[role]) for role in Role]),
            make_table(("Call", "Role", "Where"), _rows({**METER_ACCESS, **BILLING_ACCESS})),
            "Reports by HTTP are posted; the other paths of that port take no API key:",
            make_table(("Path", "Role", "Where"), _rows(HTTP_ACCESS)),
            _KEPT,
        ],
    )


def _rows(access: Access) -> list[tuple[str, str, str]]:
    return [
        (f"`{name.rpartition('.')[2]}`", _roles(rule), _PLACES[rule.place])
        for name, rule in access.items()
        if rule.place is not Place.ANYBODY
    ]


def _roles(rule: Rule) -> str:
    if set(rule.roles) == set(Role):
        return "any"
    more = "".join(f"; with `{name}` `{role.word}` too" for name, role in rule.also.items())
    return " or ".join(f"`{role.word}`" for role in rule.roles) + more
