"""An invoice as bytes: text, HTML, JSON, CSV. Pure."""
