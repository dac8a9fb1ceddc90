"""Messages of Envoy."""
