"""Generated messages and stubs of tokenworks.meter."""
