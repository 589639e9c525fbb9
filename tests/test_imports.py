"""The arrows between modules go one way: a module imports only from those above its own."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "jaxsoft"

ORDER = [
    "errors",
    "types",
    "random",
    "devices",
    "ops",
    "distributions",
    "normalisation",
    "references",
    "networks",
    "replay",
    "envs",
    "tabular",
    "agents",
    "config",
    "schedule",
    "evaluation",
    "failures",
    "training",
    "offline",
    "hosts",
    "grid",
    "blocks",
    "sweep",
    "memory",
    "files",
    "parquet",
    "manifest",
    "arrays",
    "checkpoint",
    "runs",
    "tables",
    "policies",
    "run_evaluation",
    "driver",
    "video",
    "statistics",
    "plots",
    "cli",
    "__main__",
]
FORBIDDEN = {"agents": {"envs", "replay"}, "ops": {"types"}}  # arrows that would point the right way, but are wrong


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
    assert {part(path) for path in modules()} <= set(ORDER)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path):
    own = part(path)
    others = imported_parts(path) - {own}
    assert others <= set(ORDER[: ORDER.index(own)]), f"{own} imports from below itself"
    assert not others & FORBIDDEN.get(own, set())
