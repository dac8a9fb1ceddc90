"""Bytes of any kind for every decoder: each reads them or says what is wrong, never fails of them.

    python -m tests.fuzz TARGET... --seconds N

`tests.fuzz.targets` has what is tried, `corpus/TARGET/` what it begins from.
"""
