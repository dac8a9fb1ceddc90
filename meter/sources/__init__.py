"""From the shapes in which others report usage to events; see `docs/reference/sources.md`."""
