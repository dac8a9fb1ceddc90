"""`tokenworks top`, from a page to a screen."""
