"""Tests of the wire, over real servers."""
