"""What the test run itself is extended by."""
