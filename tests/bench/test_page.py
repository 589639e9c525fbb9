"""The page about the benchmark holds the tables of its files, and names all workloads."""

import runpy
from pathlib import Path

from jaxsoft.bench.workloads import WORKLOADS

ROOT = Path(__file__).parents[2]


def test_the_page_has_the_tables_of_its_files_and_all_workloads():
    page = (ROOT / "docs" / "benchmarking.md").read_text()
    assert "<!-- bench/cpu.json -->" in page
    assert runpy.run_path(str(ROOT / "benchmarks" / "bench_page.py"))["filled"](page) == page
    assert [one.name for one in WORKLOADS if f"`{one.name}`" not in page] == []
