"""What the process has: clock, random ids, logs."""
