"""Several processes that serve as one: a parent that starts them and watches, and the workers."""
