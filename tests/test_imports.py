"""The arrows between modules go one way: a module imports only from those above its own."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "jaxsoft"

STOREYS = [
    "errors",
    "types",
    "trees",
    "random",
    "precision",
    "cpu",
    "ops",
    "nn",
    "envs",
    "tabular",
    "agents",
    "training",
    "fleet",
    "runs",
    "reports",
    "results",
    "testing",
    "bench",
    "cli",
    "__main__",
]
"""From the ground up: a package imports from those above its line."""

FORBIDDEN = {
    "agents": {"envs", "tabular"},
    "ops": {"types"},
    "training": {"tabular"},
    "fleet": {"tabular"},
    "runs": {"tabular"},
}
"""Arrows that would point the right way, but are wrong."""


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.name != "__init__.py")


def part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_parts(path: Path) -> set[str]:
    """The parts of jaxsoft that a module imports anywhere, functions included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("jaxsoft.")}
        elif isinstance(node, ast.ImportFrom) and node.module == "jaxsoft":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jaxsoft."):
            found.add(str(node.module).split(".")[1])
    return found


def test_every_part_has_its_place():
    assert {part(path) for path in modules()} <= set(STOREYS)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path):
    own = part(path)
    others = imported_parts(path) - {own}
    assert others <= set(STOREYS[: STOREYS.index(own)]), f"{own} imports from below itself"
    assert not others & FORBIDDEN.get(own, set())
