"""Each guarantee's protection, taken away: the test that is named for it must turn red."""
