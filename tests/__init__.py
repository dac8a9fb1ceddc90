"""The tests of Tokenworks; the folders mirror the packages."""
