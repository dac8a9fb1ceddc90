"""Tokenworks: count AI tokens by account and tier, each exactly once."""
