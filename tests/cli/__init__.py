"""The command, and what it starts."""
