"""Takes pages that stand elsewhere in the repository into the site: results beside their scripts, CONTRIBUTING."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = ("experiments/*.md", "benchmarks/*.md", "CONTRIBUTING.md", "CHANGELOG.md")
LINKED = ("experiments/*.png", "experiments/*.csv", "benchmarks/*.png")

LINK = re.compile(r"\]\((?![a-z]+:|#|/)([^)#\s]+)")


def on_files(files: Files, config: Any) -> Files:
    """Adds them under the paths that they have in the repository."""
    for path in sorted(path for pattern in PAGES + LINKED for path in ROOT.glob(pattern)):
        files.append(File(path.relative_to(ROOT).as_posix(), str(ROOT), config.site_dir, config.use_directory_urls))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turns links that hold in the repository into links that hold in the site, where docs/ is the top."""
    here = page.file.src_uri
    in_repository = here if Path(page.file.src_dir) == ROOT else f"docs/{here}"

    def in_site(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(in_repository), link[1]))
        return "](" + posixpath.relpath(target.removeprefix("docs/"), posixpath.dirname(here) or ".")

    return LINK.sub(in_site, markdown)
