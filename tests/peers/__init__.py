"""What users of other meters complain of: each complaint that could come up here has its test."""
