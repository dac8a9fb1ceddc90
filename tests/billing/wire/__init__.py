"""Tests of billing over gRPC."""
