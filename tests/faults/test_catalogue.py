"""docs/failures.md is the catalogue of faults: what it names is there, what is here is in it."""

import ast
import re
from pathlib import Path

FOLDER = Path(__file__).parent
ROOT = FOLDER.parent.parent
NAMED = re.compile(r"`(tests/[\w./-]+)(?:::(\w+))?`")


def rows() -> list[str]:
    """The lines of the tables, without their heads."""
    lines = (ROOT / "docs" / "failures.md").read_text("utf-8").splitlines()
    return [line for line in lines if line.startswith("| ") and not line.startswith("| fault")]


def functions(path: Path) -> set[str]:
    """The tests that a Python file defines."""
    tree = ast.parse(path.read_text("utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_each_named_test_is_there() -> None:
    """A path that moved, or a test that was renamed, fails here."""
    for row in rows():
        named = NAMED.findall(row.split("|")[-2])
        assert named, f"no test is named: {row}"
        for path, function in named:
            assert (ROOT / path).is_file(), f"{path} is not there: {row}"
            if path.endswith(".py"):
                known = functions(ROOT / path)
                assert any(name.startswith("test_") for name in known), f"{path} has no test"
                assert not function or function in known, f"{path} has no {function}: {row}"


def test_each_fault_is_named() -> None:
    """A new fault gets its line."""
    named = {path for row in rows() for path, _ in NAMED.findall(row)}
    for path in sorted(FOLDER.glob("test_*.py")):
        if path != Path(__file__):
            assert f"tests/faults/{path.name}" in named, path.name
