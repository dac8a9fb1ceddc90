"""Tests against heavy real components; `make test-stacks` installs those."""
