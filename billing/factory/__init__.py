"""What a factory's power could earn: the best mix of tiers, and what two times or pools differ in.

Pure, and exact: numbers are fractions until they are shown.
"""
