"""Tests of energy: counters, attribution, exporters, what is recorded."""
