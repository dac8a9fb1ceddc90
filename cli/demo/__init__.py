"""A month of a token factory: simulated customers, servers and boards, a real meter and real bills.

Owns the demo's world, its traffic, its processes and its check. Like a customer's program it knows
the packages of `tokenworks`, like an operator's shell the command; the product from within it does
not. Times are UTC where nothing else is said, ms since 1970 where they are integers.
"""

from cli.demo.command import demo

__all__ = ["demo"]
