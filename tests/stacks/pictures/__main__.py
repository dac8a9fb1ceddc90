"""Writes `docs/images/dashboard-*.png`: `make pictures`."""

import sys
import tempfile
from importlib import import_module
from pathlib import Path

from tests.postgres import running_cluster
from tests.stacks.pictures.browser import photograph
from tests.stacks.pictures.gallery import opened_gallery
from tests.stacks.pictures.life import LONG
from tests.stacks.pictures.page import WIDTH

IMAGES = Path(__file__).resolve().parents[3] / "docs" / "images"


def main() -> int:
    """Live, ask, draw; the pictures are left in the documentation."""
    with (
        tempfile.TemporaryDirectory() as name,
        running_cluster(bin_directory=None) as cluster,
    ):
        cluster.migrate_template()
        folder = Path(name)
        with (
            cluster.database() as url,
            opened_gallery(
                import_module("helm_python"), database_url=url, calendar=LONG, folder=folder
            ) as hung,
        ):
            for each in hung:
                path = IMAGES / f"dashboard-{each.name}.png"
                photograph(each.page, path=path, folder=folder, width=WIDTH, height=each.height)
                print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
