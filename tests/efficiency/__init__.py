"""Tokens per watt from outside, against published figures and a calculation of its own."""
