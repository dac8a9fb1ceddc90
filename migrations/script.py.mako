"""${message}

pre: runs before the new code and must suit the old; post: runs after the old code is gone.
"""

from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    """Change the schema."""
