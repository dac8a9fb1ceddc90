"""Postgres: the only place that speaks SQL."""
