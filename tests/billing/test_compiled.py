"""Contracts as JSON: what was compiled is what the file says."""

import json

import pytest

from billing.compiled import FORM, compile_version, find_compiled
from tests.billing.terms import a_contract
from tests.billing.test_contract_file import EVERYTHING

TEXTS = (
    "",
    EVERYTHING,
    '[closing]\nhold_jump = "0"',
    '[[overrides]]\nprices = { input = "0.10" }\n[[overrides]]\nfactor = "1"',
    '[document]\nminimum = "0.00"\nenergy = "board"',
)


@pytest.mark.parametrize("text", TEXTS)
def test_compile_version__and_back(text: str) -> None:
    """A version that is compiled and read again is the same, to the last zero of its decimals."""
    version = a_contract(text)
    compiled = compile_version(version)
    found = find_compiled(compiled)
    assert found == version
    assert repr(found) == repr(version)
    assert compile_version(version) == compiled


def test_find_compiled__of_another_form() -> None:
    """What is not there, or of a form that is not known, is none: its file is read instead."""
    assert find_compiled(None) is None
    other = json.loads(compile_version(a_contract()))
    other["form"] = FORM + 1
    assert find_compiled(json.dumps(other)) is None
