"""From journal to usage: follow, add up, cut."""
