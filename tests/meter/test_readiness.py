"""What readiness is judged by, at each edge."""

from collections.abc import Sequence

import pytest

from meter.readiness import Readiness, SchemaLook, Signs, find_obstacles

CASES: list[tuple[Signs, list[str]]] = [
    (Signs(), []),
    (Signs(database_seconds=5.0, counting_seconds=60.0), []),
    (Signs(database_seconds=5.1), ["database: has not answered for 5 s"]),
    (Signs(counting_seconds=60.1), ["counting: 60 s behind"]),
    (
        Signs(missing=["0010_pre_roles", "0011_pre_parts"]),
        ["schema: this version needs 0010_pre_roles, 0011_pre_parts"],
    ),
    (Signs(is_stopping=True), ["stopping: what was taken is answered, nothing more is taken"]),
]


@pytest.mark.parametrize(("signs", "expected"), CASES)
def test_find_obstacles__one_sign(signs: Signs, expected: list[str]) -> None:
    """Up to the bound a sign is none, above it is told with its number."""
    assert list(find_obstacles(signs)) == expected


def test_find_obstacles__all_at_once() -> None:
    """Each obstacle has its line, so that who mends one knows of the next."""
    signs = Signs(is_stopping=True, database_seconds=9, counting_seconds=99, missing=["0001"])
    words = [line.partition(":")[0] for line in find_obstacles(signs)]
    assert words == ["stopping", "database", "schema", "counting"]


def test_readiness__is_of_now() -> None:
    """What has passed is told no more; who stops never becomes ready again."""
    ages = iter([9.0, 0.0, 0.0, 0.0])
    readiness = Readiness(database_seconds=lambda: next(ages))
    assert readiness.obstacles() == ("database: has not answered for 9 s",)
    readiness.note_counting(61)
    readiness.note_schema(["0010"])
    assert len(readiness.obstacles()) == 2
    readiness.note_counting(0)
    readiness.note_schema([])
    assert readiness.obstacles() == ()
    readiness.stop()
    assert len(readiness.obstacles()) == 1


def test_schema__is_looked_at_when_it_may_be_another() -> None:
    """Through connections that stand nothing is asked, unless it was behind."""
    answers: list[Sequence[str]] = [[], ["0010"], ["0010"], []]
    counts = iter([3, 3, 4, 4, 4, 4, 4])
    look = SchemaLook(lambda: answers.pop(0), connection_count=lambda: next(counts))
    assert [list(look()) for _ in range(7)] == [[], [], ["0010"], ["0010"], [], [], []]
