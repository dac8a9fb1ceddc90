"""Tests of billing in Postgres."""
