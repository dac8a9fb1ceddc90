"""The chart, and the programs that make what it carries."""
