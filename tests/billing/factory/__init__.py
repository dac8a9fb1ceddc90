"""What a factory's power could earn, and what two of them differ in."""
