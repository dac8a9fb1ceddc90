"""What inference engines say themselves of their tokens, beside what was metered of them."""
