"""Generated from proto/tokenworks/billing/v1; do not edit."""
