"""Measures speed: each figure beside a bound that is taken in the same run, its answer checked."""
