"""Tests of the demo's pure parts, and of its processes against a meter that is not there."""
