"""What results.parquet says, in words: tables in docs/results.md and README.md, and learning curves beside this file.

Between the marks `<!-- reference: NAME -->` and `<!-- end -->` of the two pages stand the tables of a group, or what
else `PARTS` names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.pages import draw_band, save, table
from experiments.reference.published import CURVES, PUBLISHED, SOURCES, Published
from experiments.reference.records import Row
from experiments.reference.tasks import ENTRIES, LARGE_STEPS, MUJOCO, OTHER_SAC, Entry
from jaxsoft.reports.plots import COLOURS
from jaxsoft.reports.statistics import Interval, iqm_interval
from jaxsoft.training.config import TrainConfig, settings_of
from jaxsoft.training.schedule import timesteps_per_turn

ROOT = Path(__file__).parents[2]
FIGURES = ("classic", "discrete", "minatar", "mujoco", "brax")
"""Groups whose curves tell something: in Deep Sea a seed finds the reward or does not."""

PAGES = (ROOT / "docs" / "results.md", ROOT / "README.md")
PLACE = re.compile(r"(<!-- reference: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
AGENTS = (
    "sac",
    "sac_v1",
    "sac_discrete",
    "sac_stream",
    "td3",
    "ddpg",
    "ppo",
    "soft_q",
    "soft_q_replay",
    "soft_q_stream",
)
BLUE, VERMILLION, GREEN, PINK, ORANGE, SKY, _ = COLOURS
STYLES = {
    "sac": (BLUE, "-"),
    "sac_v1": (BLUE, "--"),
    "sac_discrete": (BLUE, "-"),
    "sac_stream": (PINK, "-"),
    "td3": (ORANGE, "-"),
    "ddpg": (SKY, "--"),
    "ppo": (GREEN, "-"),
    "soft_q": (VERMILLION, "-"),
    "soft_q_replay": (ORANGE, "--"),
    "soft_q_stream": (PINK, "-"),
}
"""Of an agent's curves in every figure: colour and line."""

IN_README = (
    ("sac", "gymnax/Pendulum-v1"),
    ("sac", "gymnax/MountainCarContinuous-v0"),
    ("sac", "brax/inverted_pendulum"),
    ("sac", "mjx/Hopper-v5"),
    ("sac", "mjx/HalfCheetah-v5"),
    ("sac_stream", "gymnax/Pendulum-v1"),
    ("sac_discrete", "gymnax/CartPole-v1"),
    ("soft_q", "gymnax/CartPole-v1"),
    ("soft_q", "gymnax/Acrobot-v1"),
    ("soft_q", "gymnax/Breakout-MinAtar"),
    ("soft_q_stream", "gymnax/CartPole-v1"),
)

LAUNCH = 1.1e-6
"""Seconds of a kernel on an H100, measured: docs/benchmarking.md."""

KERNELS = Path(__file__).with_name("kernels.json")
"""Kernels of a turn of all seeds, compiled for an H100, by name of the entry; cards.py counts them."""


class Score(NamedTuple):
    """Final returns over seeds.

    Attributes:
        interval: of the interquartile mean; failed seeds count as −∞.
        num_seeds: how many.
        num_failed: how many failed.
        timestep: environment steps that each has learned from.
    """

    interval: Interval
    num_seeds: int
    num_failed: int
    timestep: int

    def __str__(self) -> str:
        return in_words(self.interval)


def in_words(interval: Interval) -> str:
    """`−152.1 [−157.8, −144.6]`; numbers above a thousand without decimals."""
    spec = ",.0f" if abs(interval.point) >= 1_000 else ".1f" if abs(interval.point) >= 1 else ".2f"
    return re.sub(r"-(?=0\.0+\b)", "", interval.in_words(spec)).replace("-inf", "−∞").replace("-", "−")


def rows_of(measured: Sequence[Row], entry: Entry) -> list[Row]:
    """The rows of an entry."""
    return [row for row in measured if (row.agent, row.env, row.variant) == (entry.agent, entry.env_id, entry.variant)]


def names_of(measured: Sequence[Row]) -> set[str]:
    """Of the entries that have been measured as they are now: the same settings, judged in all ways."""
    return {entry.name for entry in ENTRIES if is_current(rows_of(measured, entry), entry)}


def is_current(rows: Sequence[Row], entry: Entry) -> bool:
    """Whether an entry's rows are of its settings, and lack no judgement; what an earlier version lacks was default."""
    if not rows:
        return False
    then, now = (_comparable(json.loads(settings), entry) for settings in (rows[0].settings, entry.written_settings))
    judged = {(row.policy, row.played_in) for row in rows if row.moment == "final"}
    return then == now and judged >= set(entry.ways)


def _comparable(settings: dict[str, Any], entry: Entry) -> dict[str, Any]:
    """Settings with the defaults of those that are missing, and without checkpoints."""
    kind = entry.config.train.kind
    defaults = settings_of(TrainConfig(kind, kind.Config()))
    agent = {name: defaults[name] for name in vars(kind.Config())} | settings["agent"]
    others = {name: x for name, x in defaults.items() if name not in agent} | settings | {"agent": agent}
    return {name: x for name, x in json.loads(json.dumps(others)).items() if "checkpoint" not in name}


def final(measured: Sequence[Row], entry: Entry, played_in: str = "", policy: str = "deterministic") -> Score:
    """What an entry's final policies earn, where it was trained or in another environment."""
    how = ("final", played_in or entry.env_id, policy)
    rows = [row for row in rows_of(measured, entry) if (row.moment, row.played_in, row.policy) == how]
    scores = np.array([row.mean_return for row in rows])
    return Score(iqm_interval(scores), len(rows), int(np.isneginf(scores).sum()), max(row.timestep for row in rows))


def write(measured: Sequence[Row]) -> None:
    """Writes figures, and the parts of the pages."""
    for group in FIGURES:
        for style in ("light", "dark"):
            draw(measured, group, Path(__file__).with_name(f"{group}{'_dark' * (style == 'dark')}.png"), style)
    for file in PAGES:
        file.write_text(filled(file.read_text(), measured, file))


def filled(text: str, measured: Sequence[Row], file: Path) -> str:
    """A page with its marked parts as `measured` has them."""

    def fill(place: re.Match[str]) -> str:
        lines = PARTS[place[2]](measured, place[2], "../" if file.parent.name == "docs" else "")
        return "\n".join([place[1], *lines, "", place[3]])

    return PLACE.sub(fill, text)


def done(measured: Sequence[Row], group: str = "") -> list[Entry]:
    """The entries that have been measured, of one group or of all."""
    names = names_of(measured)
    return [entry for entry in ENTRIES if entry.name in names and group in ("", entry.group)]


def _agent(entry: Entry) -> str:
    return f"`{entry.agent}`" + f", {entry.variant}" * bool(entry.variant)


def _seeds(score: Score) -> str:
    return f"{score.num_seeds}" + f", {score.num_failed} failed" * bool(score.num_failed)


def returns(measured: Sequence[Row], group: str, root: str) -> list[str]:
    """A group's table: an entry a row, with what others publish below, and its curves."""
    rows = []
    for entry in done(measured, group):
        score = final(measured, entry)
        rows.append((f"`{entry.env_id}`", _agent(entry), _seeds(score), f"{score.timestep:,}", score))
    if not rows:
        return ["Nothing yet."]
    lines = table(("environment", "agent", "seeds", "steps per seed", "return"), sorted(rows, key=_env_then_place), 2)
    return [*lines, *_published(measured, group), *_figure(group, root)]


def deep_sea(measured: Sequence[Row], group: str, root: str) -> list[str]:
    """How many seeds find the reward, which is all or nothing: a mean would say what no seed does."""
    rows = []
    for entry in done(measured, group):
        found = [row.mean_return > 0.5 for row in rows_of(measured, entry) if row.moment == "final"]
        steps = f"{final(measured, entry).timestep:,}"
        rows.append((f"`{entry.env_id}`", _agent(entry), steps, f"{sum(found)} of {len(found)}"))
    return table(("environment", "agent", "steps per seed", "seeds that find it"), sorted(rows, key=_env_then_place), 2)


def _env_then_place(row: Sequence[Any]) -> tuple[int, int]:
    envs = [f"`{entry.env_id}`" for entry in ENTRIES]
    return envs.index(row[0]), AGENTS.index(row[1].split("`")[1])


def mujoco(measured: Sequence[Row], group: str, root: str) -> list[str]:
    """Of gymnasium's tasks: final policies in our physics and in gymnasium's own, by their modes and by samples."""
    rows = []
    for entry in done(measured, group):
        host = f"gymnasium/{entry.env_id.partition('/')[2]}"
        here = "–" if entry.library else final(measured, entry)
        there, drawn = final(measured, entry, host), final(measured, entry, host, "stochastic")
        task = entry.env_id.partition("/")[2]
        rows.append((task, _agent(entry), _seeds(there), f"{there.timestep:,}", here, there, drawn))
    if not rows:
        return ["Nothing yet."]
    rows.sort(key=lambda row: (MUJOCO.index(row[0].partition("-")[0]), row[1]))
    header = ("task", "agent", "seeds", "steps per seed", "mode, `mjx/`", "mode, gymnasium's", "samples, gymnasium's")
    return [*table(header, rows, 2), *_published(measured, group), *_figure(group, root)]


def _published(measured: Sequence[Row], group: str) -> Iterator[str]:
    rows = []
    for entry in done(measured, group):
        for other in PUBLISHED:
            if (other.agent, other.env) == (entry.agent, entry.env_id.partition("/")[2]) and _fits(entry, other):
                explores = other.source == "SLM-Lab" and entry.both_ways
                policy = "stochastic" if explores else "deterministic"
                score = final(measured, entry, *entry.judged_in, policy=policy)
                rows.append((other.env, _agent(entry), score, f"{score.timestep:,}", other))
    if rows:
        yield from ("", "Beside what others publish:", "")
        header = ("task", "ours", "return", "at steps", "theirs", "at steps", "from")
        shown = (
            (*own, f"{other.result}{f', {other.of}' * bool(other.of)}", f"{other.steps:,}", other.source)
            for *own, other in rows
        )
        yield from table(header, shown, 2)
        yield ""
        for source in dict.fromkeys(row[-1].source for row in rows):
            yield f"* {source}: {SOURCES[source]}."


def _fits(entry: Entry, other: Published) -> bool:
    """Whether an entry of a task stands beside a published number: with the customary settings, or with its own."""
    steps = entry.config.train.total_timesteps
    return not entry.variant or (entry.variant == LARGE_STEPS and (other.source, other.steps) == ("SimbaV2", steps))


def _figure(group: str, root: str) -> list[str]:
    if group not in FIGURES:
        return []
    told = f"Learning curves: {group.replace('_', ' ')}"
    where = f"{root}experiments/reference/{group}"
    return ["", f"![{told}]({where}.png#gh-light-mode-only)![{told}]({where}_dark.png#gh-dark-mode-only)"]


def missing(measured: Sequence[Row], group: str, root: str) -> list[str]:
    """What is not measured yet, and how long it would take."""
    names, rows, hours, counts = names_of(measured), [], 0.0, json.loads(KERNELS.read_text())
    for entry in ENTRIES:
        if entry.name not in names:
            config, minutes = entry.config.train, "–"
            if kernels := counts.get(entry.name):
                turns = config.total_timesteps / timesteps_per_turn(config)
                least = turns * kernels * LAUNCH / 60
                minutes = f"{least:.0f} min" if least >= 1 else "< 1 min"
            rows.append((f"`{entry.env_id}`", _agent(entry), entry.num_seeds, f"{entry.hours:.1f} h", minutes))
            hours += entry.hours
    if not rows:
        return ["Nothing is missing."]
    lines = [f"{len(rows)} of {len(ENTRIES)} entries, some {hours:.0f} hours on two cores.", ""]
    return lines + table(("environment", "agent", "seeds", "two cores", "an H100"), rows, 2)


def chosen(measured: Sequence[Row], group: str, root: str) -> list[str]:
    """The README's rows; one of gymnasium's tasks is judged in gymnasium's own environment."""
    names = names_of(measured)
    entries = (entry for pair in IN_README for entry in ENTRIES if (entry.agent, entry.env_id) == pair)
    rows = []
    for entry in entries:
        if entry.name in names and not entry.variant:
            score = final(measured, entry, *entry.judged_in)
            rows.append((f"`{entry.agent}`", f"`{entry.env_id}`", _seeds(score), f"{score.timestep:,}", score))
    return table(("agent", "environment", "seeds", "steps per seed", "return"), rows, 2)


def curves(measured: Sequence[Row], group: str, root: str) -> list[str]:
    """SAC's evaluations in the training, with the customary settings and with others, beside the published ones."""
    names, rows = names_of(measured), []
    for task, published in CURVES.items():
        ours: dict[str, dict[int, Interval]] = {variant: {} for variant in ("", *OTHER_SAC)}
        for entry in ENTRIES:
            if (entry.agent, entry.env_id) == ("sac", f"mjx/{task}") and entry.name in names and entry.variant in ours:
                ours[entry.variant] = dict(zip(*_curve(measured, entry), strict=True))
        for timestep, theirs in published.items():
            found = [in_words(curve[timestep]) if timestep in curve else "–" for curve in ours.values()]
            rows.append((task, f"{timestep:,}", *found, theirs))
    return table(("task", "at steps", "as above", *OTHER_SAC, "published"), rows, 1)


PARTS = {
    "classic": returns,
    "discrete": returns,
    "deep_sea": deep_sea,
    "minatar": returns,
    "brax": returns,
    "mujoco": mujoco,
    "curves": curves,
    "missing": missing,
    "chosen": chosen,
}


def draw(measured: Sequence[Row], group: str, file: Path, style: str) -> None:
    """A group's learning curves, a panel per environment: IQM over seeds in the band of its interval."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    envs: dict[str, list[Entry]] = {}
    for entry in done(measured, group):
        if entry.variant in ("", LARGE_STEPS):
            envs.setdefault(entry.env_id, []).append(entry)
    if not envs:
        return
    ink = "#222222" if style == "light" else "#dddddd"
    inked = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    settings: Any = dict.fromkeys(inked, ink) | {"font.size": 12, "savefig.transparent": True, "lines.linewidth": 2}
    columns = min(len(envs), 3)
    lines = -(-len(envs) // columns)
    with mpl.rc_context(settings):
        figure = Figure(figsize=(0.8 + 3.4 * columns, 0.8 + 2.8 * lines), dpi=100, layout="constrained")
        panels = figure.subplots(lines, columns, squeeze=False).ravel()
        shown: dict[str, Any] = {}
        for axes, (env_id, entries) in zip(panels, envs.items(), strict=False):
            for entry in entries:
                colour, dash = STYLES[entry.agent]
                label = ", ".join(part for part in (entry.agent, entry.variant) if part)
                timesteps, intervals = _curve(measured, entry)
                draw_band(axes, timesteps, intervals, "--" if entry.variant else dash, color=colour, label=label)
                shown.setdefault(label, axes.lines[-1])
            budgets = [entry.config.train.total_timesteps for entry in entries]
            is_log = max(budgets) > 2 * min(budgets)
            axes.set(title=env_id.partition("/")[2], xscale="log" if is_log else "linear")
            if is_log:
                is_short = np.divide(*axes.get_xlim()[::-1]) < 100
                axes.xaxis.set_major_locator(LogLocator(subs=(1, 3) if is_short else (1,)))
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.margins(x=0.02)
        for axes in panels[len(envs) :]:
            axes.remove()
        figure.supxlabel("environment steps per seed")
        figure.supylabel("return")
        handles = [shown[label] for label in sorted(shown, key=lambda label: AGENTS.index(label.partition(",")[0]))]
        figure.legend(handles=handles, frameon=False, loc="outside upper center", ncols=2 * columns, columnspacing=1.2)
        save(figure, file, has_legend=False)


def _curve(measured: Sequence[Row], entry: Entry) -> tuple[list[int], list[Interval]]:
    """Intervals at every evaluation of the training at which they are finite."""
    by_timestep: dict[int, list[float]] = {}
    for row in rows_of(measured, entry):
        if row.moment == "training":
            by_timestep.setdefault(row.timestep, []).append(row.mean_return)
    found = {timestep: iqm_interval(np.array(returns)) for timestep, returns in sorted(by_timestep.items())}
    finite = {timestep: interval for timestep, interval in found.items() if np.isfinite(interval).all()}
    return list(finite), list(finite.values())
