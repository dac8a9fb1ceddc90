"""Producers × meter × a flaky store, network and disk in one thread, out of one seed."""
