"""Tests of an invoice's documents."""
