"""The page of the file of sources: each key with its default, and an example that is read."""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meter.sources.places import Places, read_places
from meter.toml_file import FileFaults

PAGE = (Path(__file__).parents[2] / "docs/reference/sources-file.md").read_text("utf-8")


def tables(kind: type[Any], *, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the tables of a class of places by their paths, with what holds without the file."""
    for each in dataclasses.fields(kind):
        if dataclasses.is_dataclass(each.type):
            assert isinstance(each.type, type)
            yield path + each.name, each.type()
            yield from tables(each.type, path=f"{path}{each.name}.")


def section(name: str) -> str:
    """Return what the page says of a table."""
    title = rf"^## `{re.escape(name)}`$"
    found = re.search(rf"{title}.*?(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None, name
    return found[0]


def rows(name: str) -> dict[str, str]:
    """Return the rows of a table's section by their keys."""
    return dict(re.findall(r"^\| `([a-z_]+)` \| (.*)$", section(name), re.MULTILINE))


@pytest.mark.parametrize(("path", "table"), list(tables(Places)))
def test_page__has_each_key(path: str, table: Any) -> None:  # noqa: ANN401
    """Each key stands in its table's section, with the default that it really has, and no other."""
    told = rows(path)
    keys = [it.name for it in dataclasses.fields(table) if not dataclasses.is_dataclass(it.type)]
    assert sorted(told) == sorted(keys)
    for key in keys:
        default = getattr(table, key)
        for place in default if isinstance(default, tuple) else [default]:
            assert not isinstance(place, str) or not place or f"`{place}`" in told[key]


def test_page__shows_a_file_that_is_read() -> None:
    """The whole example is one."""
    (example,) = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    places = read_places(example)
    assert places.accounts["Team Blue"] == "blue"
    assert places.cloud_events.kinds == {"thinking": "reasoning"}


def test_page__shows_a_fault_as_it_is_told() -> None:
    """What is said of a wrong file is what the page says."""
    with pytest.raises(FileFaults) as caught:
        read_places('[headers]\nacount = "x"')
    assert f"Error: {caught.value.describe('sources.toml')}" in PAGE
