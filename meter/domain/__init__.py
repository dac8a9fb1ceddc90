"""Pure words and rules of the meter: no I/O, no clock, no randomness."""
