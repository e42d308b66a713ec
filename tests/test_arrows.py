"""Who may import whom: the rooms of the house, held to by parsing the imports."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FLOORS = [
    {"types"},
    {"core"},
    {"distributions", "nets", "bijections", "paths", "kernels", "teaching"},
    {"samplers"},
    {"models"},
    {"transforms"},
    {"parallel", "metrics"},
]
FLOOR = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
LINEN = {"nets", "models"}
FORBIDDEN = {"print", "open", "input"}
FILES = sorted((ROOT / "jaxgen").rglob("*.py"))


def room_of(path):
    return path.relative_to(ROOT / "jaxgen").parts[0].removesuffix(".py")


def imports(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def wrong_arrows(path, tree):
    """Imports of a higher floor, of another model, of `experiments`, or of linen outside its rooms."""
    room = room_of(path)
    for name in imports(tree):
        parts = name.split(".")
        if parts[0] in ("experiments", "benchmarks", "tests"):
            yield name
        if parts[:2] == ["flax", "linen"] and room not in LINEN:
            yield name
        if parts[0] == "jaxgen" and len(parts) > 1 and room != "__init__" and parts[1] in FLOOR:
            same_model = room == "models" and parts[1] == "models" and path.name != "__init__.py"
            if FLOOR[parts[1]] > FLOOR[room] or (same_model and len(parts) > 2):
                yield name


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
    assert list(wrong_arrows(path, ast.parse(path.read_text()))) == []


def test_every_room_has_a_floor():
    assert {room_of(path) for path in FILES} - {"__init__"} <= set(FLOOR)


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("core.py", "import jaxgen.models.classical.ppca"),
        ("nets/a.py", "from jaxgen.samplers import loop"),
        ("models/flows/a.py", "from jaxgen.models.classical import ppca"),
        ("samplers/a.py", "from flax import linen"),
        ("metrics/a.py", "import experiments.data"),
    ],
)
def test_a_wrong_arrow_is_found(file, source):
    assert list(wrong_arrows(ROOT / "jaxgen" / file, ast.parse(source)))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_library_has_no_side_effects(path):
    """Nothing prints, opens files or reads the environment."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in FORBIDDEN, f"{node.func.id} at line {node.lineno}"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) not in {("os", "environ"), ("os", "getenv"), ("sys", "stdout")}
