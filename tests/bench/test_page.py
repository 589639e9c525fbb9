"""Pages hold the tables of benchmarks' files: that of `jaxsoft bench`, with all workloads, and that of peers."""

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
    since = " ".join(page.partition("The last of this came after the H200.")[2].partition("\n\n")[0].split())
    for was, name in (
        (91, "sac-small × 1"),
        (63, "soft-q-stream × 1"),
        (1_497, "soft-q-minatar × 64"),
        (1_875, "ppo × 64"),
    ):
        now = counts[name]
        told = [f"{was:,} kernels of `{name.split()[0]}` became {now:,}", f"{was:,} of `{name.split()[0]}` {now:,}"]
        assert any(x in since for x in told), name
    assert f"{counts['sac-small × 1']} should take {104 / 91 * counts['sac-small × 1']:.0f} µs" in since
    assert "<!-- bench/h200.json -->" in page
    changes = " ".join((ROOT / "CHANGELOG.md").read_text().partition("## 0.1.0")[0].split())
    for told, name in (
        ("a turn of Soft Q(λ) has {}", "soft-q"),
        ("PPO {}", "ppo"),
        ("replayed Soft Q(λ) {}", "soft-q-replay"),
    ):
        assert told.format(f"{counts[f'{name} × 64']:,}") in changes
    assert f"is {counts['mjx-hopper × 64']:,} kernels on an H100" in changes


def peers_on_the_page(name: str, heading: str) -> list[str]:
    """The rows of a table of peers, which docs/results.md has below a heading, but for what was not measured."""
    measured = (ROOT / "benchmarks" / name).read_text().splitlines()
    rows = [row for row in measured if row.startswith(("| SAC", "| Soft", "|  |")) and not row.endswith("|  |")]
    page = (ROOT / "docs" / "results.md").read_text().partition(heading)[2]
    assert rows == page.partition("| setting |")[2].partition("\n\n")[0].splitlines()[2:]
    return rows


def speeds_of(rows: list[str]) -> dict[tuple[str, str], str]:
    """Median speeds by setting and library."""
    speeds, name = {}, ""
    for row in rows:
        setting, library, speed, *_ = (cell.strip() for cell in row.strip("|").split("|"))
        name = setting or name
        speeds[name, library] = speed.partition(" ")[0]
    return speeds


def test_the_tables_of_peers_on_the_page_and_the_speeds_in_the_readme_are_the_measured_ones():
    speeds = speeds_of(peers_on_the_page("peers.md", "## Speed"))
    readme = (ROOT / "README.md").read_text().partition("| environment steps per second")[2]
    table, _, on_a_gpu = readme.partition("\n\n")
    told = table.splitlines()[2:]
    assert len(told) == 5
    for row in told:
        start, ours, others = (cell.strip() for cell in row.strip("|").split("|"))
        (name,) = {setting for setting, _ in speeds if setting.startswith(start) and "1M" not in setting}
        assert speeds[name, "jaxsoft"] == ours
        found = re.findall(r"([\w-]+) (\d[\d,]*\d)", others)
        assert len(found) == 1 + others.count(", ")
        for library, speed in found:
            assert speed in (speeds.get((name, library)), speeds.get((name, f"{library}'s PQN"))), (name, library)
    fastest = speeds_of(peers_on_the_page("peers_gpu.md", "### On a GPU"))
    assert fastest["Soft Q(λ), CartPole, 1,024 seeds, 64 × 64 steps", "jaxsoft"] in on_a_gpu
