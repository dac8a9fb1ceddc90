"""Holds the tree to its own rules of form; what other linters can say is left to them."""

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FUNCTION_LINES_MAX = 70
MODULE_LINES_MAX = 400
# Where a fault that nobody foresaw is caught, logged and survived; nowhere else.
BROAD_EXCEPT_EDGES = {
    # A call: the caller is told INTERNAL, the log has the fault.
    "meter/wire/status.py",
    # A report by HTTP: the same.
    "meter/wire/http_reports.py",
    # A batch that is read among others' batches: its own stream is told, theirs go on.
    "meter/wire/small_batches.py",
    # The client: values of the caller's own making, whose code may raise anything.
    "sdk/tokenworks/client/foreign.py",
}
CONSTRAINTS = ["constraints.txt", "constraints-stacks.txt", "constraints-litellm.txt"]
# Where billing has numbers that are not exact; none of them is money that anybody pays.
INEXACT_EDGES = {
    # Prometheus has nothing but floats.
    "billing/metrics.py",
    # Seconds to wait.
    "billing/closing.py",
}
CATCH_ALL_NAMES = {"common", "helper", "helpers", "misc", "shared", "util", "utils"}
GENERATED = re.compile(r"sdk/tokenworks/(meter|billing)/v1/\w+_pb2(_grpc)?\.pyi?")
TEST_NAME = re.compile(r"test_[a-z0-9]+(_[a-z0-9]+)*__[a-z0-9]+(_[a-z0-9]+)*")
MIGRATION_NAME = re.compile(r"(\d{4})_(pre|post)_[a-z0-9]+(_[a-z0-9]+)*\.py")


def test_function__is_at_most_70_lines() -> None:
    """A function fits on a screen, its decorators and docstring included."""
    assert not [
        f"{path}:{function.lineno} {function.name}"
        for path in _sources()
        for function in _functions(path)
        if _count_lines(function) > FUNCTION_LINES_MAX
    ]


def test_module__is_at_most_400_lines() -> None:
    """A module can be read in one sitting."""
    assert not [path for path in _sources() if _read(path).count("\n") > MODULE_LINES_MAX]


def test_module__is_named_for_what_it_is() -> None:
    """No module or folder is a drawer for things that have no place."""
    assert not [
        path for path in _sources() if CATCH_ALL_NAMES & {Path(path).stem, *Path(path).parts}
    ]


def test_except__is_broad_at_the_edges_only() -> None:
    """What nobody foresaw is caught once at each edge, and nowhere hides a mistake."""
    found = {path for path in _sources() if any(_is_broad(node) for node in _nodes(path))}
    assert found == BROAD_EXCEPT_EDGES


def test_billing__is_exact_but_at_the_edges() -> None:
    """Money meets no float and no division, which rounds where nobody sees it."""
    billing = [path for path in _sources() if path.startswith("billing/")]
    found = {path for path in billing if any(_is_inexact(node) for node in _nodes(path))}
    assert found == INEXACT_EDGES


def test_test__has_an_operation_and_a_case() -> None:
    """A test's name says what is done and in which case."""
    assert not [
        f"{path}:{function.lineno} {function.name}"
        for path in _sources()
        if Path(path).name.startswith("test_")
        for function in _functions(path)
        if function.name.startswith("test_") and not TEST_NAME.fullmatch(function.name)
    ]


def test_test__says_its_truth_in_one_line() -> None:
    """Each test's docstring is one line: what holds when it is green."""
    assert not [
        f"{path}:{function.lineno} {function.name}"
        for path in _sources()
        if Path(path).name.startswith("test_")
        for function in _functions(path)
        if function.name.startswith("test_")
        and len((ast.get_docstring(function) or "").splitlines()) != 1
    ]


def test_migration__is_numbered_and_staged() -> None:
    """Migrations count up without a hole, and say whether they come before or after the code."""
    names = sorted(path.name for path in (ROOT / "migrations/versions").glob("*.py"))
    matches = [MIGRATION_NAME.fullmatch(name) for name in names]
    assert [match and int(match[1]) for match in matches] == list(range(1, len(names) + 1))


def test_tree__names_no_machine_and_no_index() -> None:
    """No tracked file knows the machine it was written on, or where packages are fetched from."""
    assert not [
        f"{path}: {match[0]}"
        for path in _tracked()
        # Seeds of a fuzzer are any bytes.
        for match in _FOREIGN.finditer((ROOT / path).read_bytes().decode("latin-1"))
    ]


@pytest.mark.parametrize("path", CONSTRAINTS)
def test_constraints__are_pinned_and_hashed(path: str) -> None:
    """Every requirement has one version and hashes, and no option says where to find it."""
    requirements = _read(path).replace("\\\n", " ").splitlines()
    shape = re.compile(r"[a-z0-9-]+==\S+( ; [^#]+?)?(\s+--hash=sha256:[0-9a-f]{64})+\s*")
    assert requirements
    assert not [line for line in requirements if not shape.fullmatch(line)]


def test_dependency__is_pinned_and_has_its_reason() -> None:
    """Each dependency is in the constraints, and in the page that says what it is for."""
    text = "".join(_read(path) for path in CONSTRAINTS)
    pinned = set(re.findall(r"^([a-z0-9-]+)==", text, re.MULTILINE))
    reasons = _read("docs/decisions/0001-dependencies.md")
    names = set(_dependencies()) - {"tokenworks-client"}
    assert names <= pinned
    assert not [name for name in names if f"`{name}`" not in re.sub(r"\[\w+\]", "", reasons)]


# Written in two halves, so that this file does not hold what it looks for.
_FOREIGN = re.compile(
    "|".join(
        [
            r"(?<![\w.*-])/" + "(work|root|home)/",
            "pypi" + r"\.org",
            "python" + r"hosted",
            "npm" + r"js\.",
            "deb" + r"ian\.org",
            "extra-" + "index-url",
        ]
    )
)


def _tracked() -> list[str]:
    """Text files that are tracked, or would be."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    paths = [path for path in listed.stdout.splitlines() if not path.endswith((".png", ".gz"))]
    return [path for path in paths if (ROOT / path).is_file()]


def _sources() -> list[str]:
    paths = [path for path in _tracked() if path.endswith(".py") and not GENERATED.fullmatch(path)]
    assert paths
    return paths


def _read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def _nodes(path: str) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(_read(path)))


def _functions(path: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in _nodes(path):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def _count_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = min([function.lineno, *(mark.lineno for mark in function.decorator_list)])
    return (function.end_lineno or first) - first + 1


def _is_broad(node: ast.AST) -> bool:
    if not isinstance(node, ast.ExceptHandler):
        return False
    if node.type is None:
        return True
    caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
    return bool({"Exception", "BaseException"} & {ast.unparse(name) for name in caught})


def _is_inexact(node: ast.AST) -> bool:
    if isinstance(node, ast.BinOp | ast.AugAssign):
        return isinstance(node.op, ast.Div)
    if isinstance(node, ast.Constant):
        return isinstance(node.value, float)
    return isinstance(node, ast.Name) and node.id == "float"


def _dependencies() -> Iterator[str]:
    """Names of all that either distribution asks for, without extras and versions."""
    for path in ("pyproject.toml", "sdk/pyproject.toml"):
        project = tomllib.loads(_read(path))["project"]
        extras = project.get("optional-dependencies", {}).values()
        for requirement in (
            *project["dependencies"],
            *(line for extra in extras for line in extra),
        ):
            yield re.split(r"[\[<>=~! ;]", requirement, maxsplit=1)[0]
