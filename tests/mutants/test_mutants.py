"""The list of mutants fits the tree."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.mutants.mutant import ROOT, Mutant, read_mutants

_MUTANTS = read_mutants()
_GUARANTEES = ("G1", "G2", "G3", "G4", "G5", "G6", "G7", "G8", "G10", "G15", "G21", "G23", "E1")
_PAGE = ROOT / "docs" / "operating" / "guarantees.md"


@pytest.mark.parametrize("mutant", _MUTANTS, ids=lambda mutant: mutant.name)
def test_list__each_change_can_be_made(mutant: Mutant, tmp_path: Path) -> None:
    """What a mutant replaces stands once in its file, and its tests exist."""
    copy = tmp_path / mutant.file
    copy.parent.mkdir(parents=True)
    copy.write_bytes((ROOT / mutant.file).read_bytes())
    mutant.apply(tmp_path)
    compile(copy.read_text("utf-8"), mutant.file, "exec")
    for test in mutant.tests:
        path, *names = test.split("::")
        assert (ROOT / path).exists()
        for name in names:
            assert f"def {name.partition('[')[0]}(" in (ROOT / path).read_text("utf-8")


def test_list__names_differ() -> None:
    """A mutant is found by its name."""
    names: Sequence[str] = [mutant.name for mutant in _MUTANTS]
    assert len(set(names)) == len(names)


def test_list__each_guarantee_has_a_mutant_and_its_page_names_it() -> None:
    """What is promised has a protection that was taken away, and the page says which."""
    page = _PAGE.read_text("utf-8")
    for guarantee in _GUARANTEES:
        assert f"### {guarantee} " in page
    assert {mutant.guarantee for mutant in _MUTANTS} >= set(_GUARANTEES)
    for mutant in _MUTANTS:
        assert f"`{mutant.name}`" in page
