"""The page about the benchmark holds the tables of its files, and names all workloads."""

import json
import re
import runpy
from pathlib import Path

from jaxsoft.bench.workloads import WORKLOADS

ROOT = Path(__file__).parents[2]


def test_the_page_has_the_tables_of_its_files_and_all_workloads():
    page = (ROOT / "docs" / "benchmarking.md").read_text()
    assert "<!-- bench/cpu.json -->" in page
    assert runpy.run_path(str(ROOT / "benchmarks" / "bench_page.py"))["filled"](page) == page
    assert [one.name for one in WORKLOADS if f"`{one.name}`" not in page] == []


def test_the_page_and_the_changelog_have_the_committed_counts_of_an_h100():
    page = (ROOT / "docs" / "benchmarking.md").read_text()
    counts = {
        name: row["kernels"]
        for name, row in json.loads((ROOT / "benchmarks" / "kernels.json").read_text())["h100"].items()
    }
    rows = re.findall(
        r"\| ([a-z0-9-]+)(; of one member)? \| [^|]+ \| ([\d,; ]+) \|", page.partition("### Since then")[2]
    )
    assert len(rows) > 10
    for name, of_one, now in rows:
        expected = [counts[f"{name} × 64"], *[counts[f"{name} × 1"]] * bool(of_one)]
        assert [int(x.replace(",", "")) for x in now.split(";")] == expected, name
    assert f"{counts['soft-q × 1']:,} counted now" in page
    changes = " ".join((ROOT / "CHANGELOG.md").read_text().partition("## 0.1.0")[0].split())
    for told, name in (
        ("a turn of Soft Q(λ) has {}", "soft-q"),
        ("PPO {}", "ppo"),
        ("replayed Soft Q(λ) {}", "soft-q-replay"),
    ):
        assert told.format(f"{counts[f'{name} × 64']:,}") in changes
    assert f"is {counts['mjx-hopper × 64']:,} kernels on an H100" in changes
