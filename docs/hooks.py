"""Takes into the site what Markdown in docs/ is not: pages that stand beside their scripts, and notebooks, run."""

from __future__ import annotations

import base64
import logging
import posixpath
import re
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # imported where they are used: tests read the patterns below without them
    from mkdocs.structure.files import Files

ROOT = Path(__file__).parents[1]
PAGES = ("experiments/*.md", "benchmarks/*.md", "CONTRIBUTING.md", "CHANGELOG.md")
LINKED = (
    "experiments/**/*.png",
    "experiments/*.csv",
    "experiments/reference/results.parquet",
    "benchmarks/*.png",
    "benchmarks/*.json",
)
SOURCES = ("experiments/reference/tasks.py", "experiments/step_size_rules.py")
"""Programs that pages link: they are for reading."""

LINK = re.compile(r"\]\((?![a-z]+:|#|/)([^)#\s]+)")


def on_startup(**_: Any) -> None:
    """Lets `--quiet` print and count warnings: MkDocs would hide them, and `--strict` fails on those that it counts."""
    logger = logging.getLogger("mkdocs")
    logger.setLevel(min(logger.getEffectiveLevel(), logging.WARNING))


def on_files(files: Files, config: Any) -> Files:
    """Adds them under the paths that they have in the repository; notebooks/NAME.ipynb becomes the page NAME.md."""
    from mkdocs.structure.files import File

    for path in sorted(path for pattern in PAGES + LINKED + SOURCES for path in ROOT.glob(pattern)):
        files.append(File(path.relative_to(ROOT).as_posix(), str(ROOT), config.site_dir, config.use_directory_urls))
    notebooks = [file.src_uri for file in files if file.src_uri.endswith(".ipynb")]
    for uri in notebooks:
        page, pictures = run_notebook(uri, (ROOT / "docs" / uri).read_text())
        files.append(File.generated(config, uri.replace(".ipynb", ".md"), content=page))
        for name, picture in pictures.items():
            files.append(File.generated(config, f"{posixpath.dirname(uri)}/{name}", content=picture))
    return files


@cache  # `mkdocs serve` builds again and again
def run_notebook(uri: str, text: str) -> tuple[str, dict[str, bytes]]:
    """Runs a notebook in an empty folder: a page of Markdown, and its pictures; a cell that fails fails the build."""
    import nbclient
    import nbformat
    from traitlets.config import Config

    name = posixpath.basename(uri)
    with tempfile.TemporaryDirectory() as folder:
        sockets = Config(KernelManager={"transport": "ipc", "ip": f"{folder}/socket"})  # no ports that others may take
        how = {"startup_timeout": 300, "timeout": 300, "coalesce_streams": True, "config": sockets}
        notebook = nbclient.execute(nbformat.reads(text, as_version=4), cwd=folder, **how)
    pictures: dict[str, bytes] = {}
    parts = [f'<a class="download" href="../{name}" download>Download this notebook</a>']
    for cell in notebook.cells:
        parts.append(cell.source if cell.cell_type == "markdown" else f"```python\n{cell.source}\n```")
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                picture = name.replace(".ipynb", f"_{len(pictures)}.png")
                pictures[picture] = base64.b64decode(data["image/png"])
                parts.append(f"![]({picture})")
            elif shown := data.get("text/plain") or (output.get("name") == "stdout" and output.text):
                parts.append(f"``` {{ .text .output }}\n{shown.rstrip()}\n```")
    return "\n\n".join(parts), pictures


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turns links that hold in the repository into links that hold in the site, where docs/ is the top."""
    here = page.file.src_uri
    in_repository = here if page.file.src_dir == str(ROOT) else f"docs/{here}"

    def in_site(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(in_repository), link[1]))
        in_docs = re.sub(r"\.ipynb$", ".md", target.removeprefix("docs/"))
        return "](" + posixpath.relpath(in_docs, posixpath.dirname(here) or ".")

    return LINK.sub(in_site, markdown)
