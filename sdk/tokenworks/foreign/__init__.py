"""What is read of the messages of others, in packages of our own."""
