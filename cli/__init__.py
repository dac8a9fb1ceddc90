"""The `tokenworks` command and the process that it starts."""
