"""Who owns the schema: a role, so that any login that is granted it can migrate."""

from alembic import op

revision = "0013_post_migrator"
down_revision = "0012_post_roles"

# Roles live in the cluster: another database may have made this one, or be at it, and a login
# without CREATEROLE finds what an administrator made. Until 16 CREATEROLE grants any role; from
# then on who makes a role may grant it, and neither inherits nor acts as it before.
_ROLE = """
DO $$ BEGIN
    FOR tries_left IN REVERSE 20..0 LOOP
        BEGIN
            BEGIN
                IF to_regrole('tokenworks_migrator') IS NULL THEN
                    CREATE ROLE tokenworks_migrator NOLOGIN;
                END IF;
            EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
            END;
            IF current_setting('server_version_num')::integer < 160000 THEN
                IF NOT pg_has_role('tokenworks_migrator', 'USAGE') THEN
                    EXECUTE format('GRANT tokenworks_migrator TO %I', current_user);
                END IF;
            ELSIF NOT pg_has_role('tokenworks_migrator', 'USAGE')
                  OR NOT pg_has_role('tokenworks_migrator', 'SET') THEN
                EXECUTE format('GRANT tokenworks_migrator TO %I WITH INHERIT TRUE, SET TRUE',
                               current_user);
            END IF;
            EXIT;
        EXCEPTION
            -- The schema stays the login's: `migrations.ownership` says what is to be typed.
            WHEN insufficient_privilege THEN EXIT;
            WHEN OTHERS THEN
                IF tries_left = 0 OR SQLERRM NOT LIKE '%concurrently%' THEN RAISE; END IF;
                PERFORM pg_sleep(0.05);
        END;
    END LOOP;
END $$;
"""

# What it needs to own something there: parts of the journal are made in it, and a later migration
# may make a schema.
_PLACES = """
DO $$ BEGIN
    GRANT USAGE, CREATE ON SCHEMA public TO tokenworks_migrator;
    EXECUTE format('GRANT CREATE ON DATABASE %I TO tokenworks_migrator', current_database());
EXCEPTION WHEN insufficient_privilege OR undefined_object THEN NULL;
END $$;
"""


def upgrade() -> None:
    """Make the role; whoever upgrades hands over to it what the migrations made, bit by bit."""
    op.execute(_ROLE)
    op.execute(_PLACES)
