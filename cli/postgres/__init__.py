"""A Postgres server of our own in a folder, over whatever Postgres programs are at hand."""
