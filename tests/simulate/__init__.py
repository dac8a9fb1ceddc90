"""Tests of `tokenworks simulate`."""
