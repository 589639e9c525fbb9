"""The pages: every link leads somewhere, in the repository and the site, and notebooks are kept as they are written."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from jaxsoft.agents import AGENTS
from jaxsoft.training.config import setting_types

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "docs").rglob("*.ipynb"))
PAGES = [
    *NOTEBOOKS,
    *(
        path
        for pattern in ("*.md", "docs/**/*.md", "experiments/*.md", "benchmarks/*.md")
        for path in ROOT.glob(pattern)
    ),
]


def text_of(page: Path) -> str:
    """Its Markdown, without code."""
    text = page.read_text()
    if page.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Of its headings, as MkDocs and GitHub name them."""
    headings = re.findall(r"^#+ (.*)", text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_between_pages_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?![a-z]+:)([^)\s]+)\)", text_of(page)):
        name, _, anchor = re.sub(r"#gh-(light|dark)-mode-only$", "", target).partition("#")
        other = (page.parent / name).resolve() if name else page
        assert other.exists(), target
        assert not anchor or anchor in anchors(other), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_star_of_an_optimum_begins_no_italics(page: Path) -> None:
    text = re.sub(r"`[^`]*`", "", text_of(page))
    assert not re.findall(r"\w\*\(.*", text)  # Q*(s,a) and another Q* in a paragraph need a backslash


def load(name: str) -> ModuleType:
    """A program of docs/."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_site_has_what_its_pages_link() -> None:
    hooks = load("hooks")
    patterns = ("docs/**/*", *hooks.PAGES, *hooks.LINKED, *hooks.SOURCES)
    in_site = {path for pattern in patterns for path in ROOT.glob(pattern)}
    for page in in_site & set(PAGES):
        for target in re.findall(r"\]\((?![a-z]+:|#)([^)#\s]+)", text_of(page)):
            assert (page.parent / target).resolve() in in_site, f"{page}: {target}"


@pytest.mark.parametrize(("link", "fails"), [("index.md", False), ("missing.md", True), ("index.md#missing", True)])
def test_make_docs_is_quiet_and_fails_on_a_warning(tmp_path: Path, link: str, fails: bool) -> None:
    pytest.importorskip("mkdocs")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text(f"# λ\n\n[λ](#λ) [other]({link})\n")
    site = ROOT.joinpath("mkdocs.yml").read_text()
    kept = [
        re.search(rf"^{name}:.*\n(?:  .*\n)*", site, re.MULTILINE) for name in ("validation", "markdown_extensions")
    ]
    settings = "".join(match[0] for match in kept if match)
    (tmp_path / "docs" / "hooks.py").write_text((ROOT / "docs" / "hooks.py").read_text())
    (tmp_path / "mkdocs.yml").write_text(f"site_name: x\nplugins: []\nhooks: [docs/hooks.py]\n{settings}")
    (command,) = re.findall(r"mkdocs (build .*)", ROOT.joinpath("Makefile").read_text())
    call = [sys.executable, "-m", "mkdocs", *command.split()]
    done = subprocess.run(
        call, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )
    assert bool(done.returncode) == fails, done.stderr
    assert ("missing" in done.stderr) == fails
    assert fails or not done.stderr


def test_every_setting_has_a_meaning_and_its_defaults() -> None:
    page = ROOT.joinpath("docs", "agents.md").read_text()
    assert load("defaults").filled(page) == page, "run python docs/defaults.py"
    meanings = page.partition("| setting | meaning |")[2].partition("## ")[0]
    described = re.findall(r"`(\w+)`", "".join(row.split(" | ")[0] for row in meanings.splitlines()))
    assert sorted(described) == sorted({name for kind in AGENTS.values() for name in setting_types(kind)})


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_have_no_outputs_and_a_page_in_the_site(notebook: Path) -> None:
    cells = json.loads(notebook.read_text())["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
    assert notebook.relative_to(ROOT / "docs").with_suffix(".md").as_posix() in (ROOT / "mkdocs.yml").read_text()
