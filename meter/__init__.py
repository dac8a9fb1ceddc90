"""What happened: tokens counted once, by account and tier. Knows no money."""
