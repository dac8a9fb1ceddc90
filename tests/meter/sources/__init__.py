"""Tests of how the reports of others are read."""
