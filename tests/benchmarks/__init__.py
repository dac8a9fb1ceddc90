"""Tests of the benchmarks themselves: their answers, not their speed."""
