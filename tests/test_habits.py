"""Sizes that keep code readable: functions of 40 lines without their docstring, files of 300."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FILES = [path for room in ("jaxgen", "experiments", "benchmarks") for path in sorted((ROOT / room).rglob("*.py"))]


def code_lines(function):
    docstring = ast.get_docstring(function, clean=False) or ""
    return function.end_lineno - function.lineno + 1 - len(docstring.splitlines())


def own_lines(function):
    """Lines of a function without its docstring and without the functions inside it (a factory is its parts)."""
    inner = [n for n in function.body if isinstance(n, ast.FunctionDef)]
    return code_lines(function) - sum(n.end_lineno - n.lineno + 1 for n in inner)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_functions_and_files_stay_short(path):
    text = path.read_text()
    functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef)]
    assert {f.name: own_lines(f) for f in functions if own_lines(f) > 40} == {}
    assert len(text.splitlines()) <= 300
