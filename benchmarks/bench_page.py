"""Puts the tables of `jaxsoft bench` into docs/benchmarking.md: `python benchmarks/bench_page.py`.

Between the marks `<!-- bench/NAME.json -->` and `<!-- end -->` of that page stand the tables of docs/bench/NAME.json,
and the figure beside it where there is one: `jaxsoft bench --out docs/bench/NAME.json` writes both.
"""

from __future__ import annotations

import re
from pathlib import Path

from jaxsoft.bench.results import read_results
from jaxsoft.bench.tables import ceilings_table, describe_in_words, limits_table, speed_table

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "benchmarking.md"
PLACE = re.compile(r"(<!-- (bench/[\w.-]+\.json) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(page: str) -> str:
    """The page with the tables of the files that it names."""

    def fill(place: re.Match[str]) -> str:
        results = read_results(DOCS / place[2])
        tables = [table(results).markdown() for table in (ceilings_table, speed_table, limits_table)]
        picture = Path(place[2]).with_suffix(".png")
        figure = [f"![Speeds, and shares of the ceilings]({picture})"] * (DOCS / picture).is_file()
        parts = (f"{describe_in_words(results)} ([{place[2]}]({place[2]}))", *tables, *figure)
        return place[1] + "\n" + "\n\n".join(parts) + "\n\n" + place[3]

    return PLACE.sub(fill, page)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text()))
