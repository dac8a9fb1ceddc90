"""Tests of what engines count themselves."""
