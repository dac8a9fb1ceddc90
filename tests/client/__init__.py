"""Tests of the client's distribution."""
