"""What a real GPU says of its energy, measured under a model that really generates tokens."""
