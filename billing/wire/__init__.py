"""Billing over gRPC: the only place of `billing` that speaks protobuf."""
