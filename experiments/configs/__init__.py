"""The configs, one file each, called MODEL_DATA: `names`, `summary`, `load`."""

import ast
import difflib
import importlib
import importlib.util
import pkgutil
from pathlib import Path
from types import ModuleType

from experiments.errors import UserError

__all__ = ["load", "names", "suggestion", "summary"]


def names() -> list[str]:
    """Names of all configs, without importing any."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def summary(name: str) -> str:
    """First line of a config's docstring, read without importing it."""
    spec = importlib.util.find_spec(f"{__name__}.{name}")
    assert spec is not None
    assert spec.origin is not None
    docstring = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or ""
    return docstring.split("\n")[0]


def suggestion(value: str, known: list[str]) -> str:
    """`": did you mean X?"` for the known name closest to `value`, or nothing."""
    close = difflib.get_close_matches(value, known, n=1)
    return f": did you mean {close[0]}?" if close else ""


def load(name: str) -> ModuleType:
    """Imports a config.

    Args:
        name: MODEL_DATA.

    Returns:
        Its module, with `Config` and `build(config, dataset)`.

    Raises:
        UserError: if there is none of this name.
    """
    if name not in names():
        raise UserError(f"unknown config {name!r}{suggestion(name, names())} (configs: {', '.join(names())})")
    return importlib.import_module(f"{__name__}.{name}")
