"""Every decoder with its corpus, with any bytes, and with those that a fuzzer finds its way by."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.__main__ import CORPUS
from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
# Importing what is watched may take longer than feeding it on a machine that is busy.
_SECONDS_MAX = 250


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_target__takes_its_corpus(target: str) -> None:
    """What a decoder stumbled over once it reads or refuses; each has a whole one to begin with."""
    paths = sorted((CORPUS / target).iterdir())
    assert paths
    for path in paths:
        TARGETS[target](path.read_bytes())


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_target__takes_any_bytes(target: str) -> None:
    """Bytes without a meaning are read or refused, and so are whole ones that were damaged."""
    whole = [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]
    damages = st.lists(st.tuples(st.integers(0, 4_000), st.binary(max_size=4)), max_size=4)

    @settings(max_examples=30, deadline=None, database=None)
    @given(data=st.binary(max_size=200) | st.sampled_from(whole), damages=damages)
    def takes(data: bytes, damages: Sequence[tuple[int, bytes]]) -> None:
        changed = bytearray(data)
        for place, bytes_ in damages:
            at = place % (len(changed) + 1)
            changed[at : at + len(bytes_)] = bytes_
        TARGETS[target](bytes(changed))

    takes()


def test_seeds__are_what_the_product_makes() -> None:
    """The corpus begins from what the product writes today."""
    for target, name, data in seeds():
        assert (CORPUS / target / name).read_bytes() == data, "python -m tests.fuzz.seeds"


@pytest.mark.stacks
@pytest.mark.timeout(300)
def test_fuzz__finds_nothing_in_twenty_seconds() -> None:
    """A fuzzer that sees which lines are reached finds no bytes on which a decoder fails."""
    pytest.importorskip("atheris", reason="there is no atheris for this Python")
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", *sorted(TARGETS), "--seconds", "20"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        cwd=ROOT,
        text=True,
        errors="replace",
        timeout=_SECONDS_MAX,
    )
    assert done.returncode == 0, done.stderr
