"""Generated from proto/tokenworks/meter/v1; do not edit."""
