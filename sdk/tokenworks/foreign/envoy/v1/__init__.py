"""Generated from proto/tokenworks/foreign/envoy/v1; do not edit."""
