"""Generated messages and stubs of tokenworks.billing."""
