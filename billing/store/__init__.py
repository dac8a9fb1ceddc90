"""Billing in Postgres: the only place of `billing` that speaks SQL."""
