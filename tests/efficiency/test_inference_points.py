"""Published measurements fed to a real meter as counters and tokens, and asked back of it."""

from decimal import Decimal

import pytest

from tests.efficiency.plant import Plant
from tests.efficiency.published import INFERENCE_X, ML_ENERGY
from tokenworks.meter.v1 import energy_service_pb2 as pb

_MJ_OF_JOULE = 1_000


@pytest.fixture(scope="module")
def rows(plant: Plant) -> dict[str, pb.EfficiencyRow]:
    """What the meter says of a quarter of an hour of each, by pool."""
    answer = plant.ask("POOL")
    return {row.pool: row for row in answer.rows}


@pytest.mark.parametrize("it", ML_ENERGY, ids=lambda it: it.name)
def test_ml_energy__comes_back(rows: dict[str, pb.EfficiencyRow], it: object) -> None:
    """Joules per output token are the published ones to 1e-5, tokens per joule to their digits."""
    point = next(each for each in ML_ENERGY if each is it)
    row = rows[point.name]
    joules = Decimal(row.valid_energy_mj) / _MJ_OF_JOULE
    published = Decimal(point.joules_per_token)
    assert abs(joules / row.valid_output_tokens - published) <= published * Decimal("1e-5")
    ratio = row.valid_output_tokens / joules
    assert ratio.quantize(Decimal("0.001")) == Decimal(point.tokens_per_joule)
    # And the identity of its table: joules a token times tokens a second are the watts.
    watts = joules / row.valid_output_tokens * Decimal(point.tokens_per_second)
    assert abs(watts - Decimal(point.watts)) < Decimal("0.01")


@pytest.mark.parametrize("it", INFERENCE_X, ids=lambda it: it.hardware)
def test_inference_x__comes_back(rows: dict[str, pb.EfficiencyRow], it: object) -> None:
    """Millions of tokens a second and megawatt are tokens of all classes per joule."""
    point = next(each for each in INFERENCE_X if each is it)
    row = rows[f"x-{point.hardware}"]
    joules = Decimal(row.valid_energy_mj) / _MJ_OF_JOULE
    assert row.valid_total_tokens / joules == Decimal(point.million_tokens_per_megawatt)
    per_token = (joules / row.valid_total_tokens).quantize(Decimal("0.001"))
    assert per_token == Decimal(point.joules_per_token)
    assert row.valid_output_tokens < row.valid_total_tokens
