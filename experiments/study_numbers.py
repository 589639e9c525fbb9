"""The numbers of docs/soft_q_lambda.md by name, each read from what an experiment committed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import curves
import deep_soft_q
import fixed_data
import lambda_costs
import lambda_on_cartpole
import off_policy
import reference_policies
import soft_q_lambda
from pages import TRACES
from rows import read_rows

from jaxsoft.errors import nearest
from jaxsoft.reports.statistics import Interval

HERE = Path(__file__).parent


class Number(Interval):
    """A number with its interval, or alone as `.point`."""

    def __format__(self, spec: str) -> str:
        return self.in_words(spec or ".1f")


class Names(dict[str, Any]):
    """Numbers by name."""

    def __missing__(self, name: str) -> Any:
        raise KeyError(f"no number is called {name!r}{nearest(name, list(self))}")


def read_numbers() -> dict[str, Any]:
    """All of them."""
    costs = read_rows(lambda_costs.ROWS, lambda_costs.Cost)
    return {
        **deep_numbers(deep_soft_q.read()),
        **cartpole_numbers(read_rows(lambda_on_cartpole.ROWS, lambda_on_cartpole.Cell)),
        **table_numbers(read_rows(soft_q_lambda.ROWS, soft_q_lambda.Row)),
        **fixed_numbers(),
        **sac_numbers(),
        **prior_numbers(),
        **far_numbers(read_rows(off_policy.ROWS, off_policy.Row)),
        "cost": Names({f"{x.chip}; {x.program}": x for x in costs}),
    }


def deep_numbers(cells: list[deep_soft_q.Cell]) -> dict[str, Any]:
    names = [f"{x.task}; {x.trace}; λ {x.lambda_:g}; τ {x.temperature:g}" for x in cells]
    return {
        "deep": Names({name: Number(*cell.final) for name, cell in zip(names, cells, strict=True)}),
        "deep_average": Names({name: Number(*cell.average) for name, cell in zip(names, cells, strict=True)}),
    }


def cartpole_numbers(cells: list[lambda_on_cartpole.Cell]) -> dict[str, Any]:
    names = [f"{x.part}; α {x.learning_rate:g}; λ {x.lambda_:g}" for x in cells]
    return {
        "cartpole": Names({name: Number(x.iqm, x.low, x.high) for name, x in zip(names, cells, strict=True)}),
        "level": Names({name: x.level for name, x in zip(names, cells, strict=True)}),
    }


def table_numbers(rows: list[soft_q_lambda.Row]) -> dict[str, Any]:
    """Of the online tables: least errors, how often a trace is better or worse than one step, and settings' ranks."""
    least = Names()
    for task, behaviour in soft_q_lambda.CASES:
        for trace in ("one step", *TRACES):
            lambdas = soft_q_lambda.LAMBDAS[1:] if trace in TRACES else (0.0,)
            best = min(
                (soft_q_lambda.best_row(rows, task, behaviour, trace, x) for x in lambdas),
                key=lambda row: row.mean_error,
            )
            least[f"{task}; {behaviour}; {trace}"] = Number(best.mean_error, best.mean_error_low, best.mean_error_high)
    counts = parse_table(soft_q_lambda.same_step_table(rows))
    names = [task.name for task in soft_q_lambda.TASKS]
    ranks = Names()
    for label, tasks in (("all", names), ("no cliff", [name for name in names if name != "CliffWalking"])):
        ranked = soft_q_lambda.ranking(rows, tasks)
        for trace in ("one step", *TRACES):
            ranks[f"{label}; {trace}"] = next(x for x in ranked if x.trace == trace)
    return {"least": least, "same_step": counts, "rank": ranks} | {
        name: parse_page(name) for name in ("soft_q_lambda", "convergence", "taxi")
    }


def parse_page(stem: str) -> Names:
    """Every cell of the tables of an experiment's page."""
    lines, found = (HERE / f"{stem}.md").read_text().splitlines(), Names()
    tables = "\n".join(line if line.startswith("|") else "" for line in lines)
    for one in re.findall(r"(?:\|.*\n?)+", tables):
        found.update(parse_table(one.splitlines()))
    return found


def parse_table(lines: list[str]) -> Names:
    """The cells of a table of Markdown, by row and column; columns of words on the left name the row."""
    header, kinds, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    num_words = max(1, kinds.index("--:") if "--:" in kinds else 1)
    if header[0].startswith("of ") and header[1] == "λ":
        num_words = 2
    found = Names()
    for row in rows:
        for column, cell in zip(header[num_words:], row[num_words:], strict=True):
            found["; ".join((*row[:num_words], column))] = parse_number(cell)
    return found


def parse_number(cell: str) -> Any:
    """A number with or without an interval; else the text."""
    digits = r"[-+.\de]+"
    if match := re.fullmatch(
        rf"({digits})(?: \[({digits}), ({digits})\])?", cell.replace(",", "") if "[" not in cell else cell
    ):
        return Number(*(float("nan" if x is None else x) for x in match.groups()))
    return cell


def fixed_numbers() -> dict[str, Any]:
    """Differences to λ = 0 on the same data."""
    measured = curves.read(Path(fixed_data.__file__).with_suffix(".csv"))
    return {
        name: Names(
            {
                f"{trace}; λ {x:g}": Number(*fixed_data.paired(measured, trace, x, reports))
                for trace in TRACES
                for x in fixed_data.LAMBDAS
            }
        )
        for name, reports in (("fixed_early", fixed_data.EARLY), ("fixed_final", fixed_data.FINAL))
    }


def sac_numbers() -> dict[str, Any]:
    measured = curves.read(HERE / "multi_step_sac.csv")
    return {
        name: Names({f"{task}; {label}": Number(*score(x)) for (task, label), x in measured.items()})
        for name, score in (("sac", curves.final), ("sac_average", curves.average))
    } | {"sac_seeds": next(iter(measured.values())).returns.shape[1]}


def prior_numbers() -> dict[str, Any]:
    points = read_rows(reference_policies.POINTS, reference_policies.Point)
    last = [point for point in points if point.step == reference_policies.NUM_STEPS]
    names = [f"{x.task}; τ {x.temperature:g}; {x.behaviour}; {x.prior}" for x in last]
    return {
        "prior_error": Names({n: Number(x.error, x.error_low, x.error_high) for n, x in zip(names, last, strict=True)}),
        "prior_return": Names(
            {n: Number(x.earned, x.earned_low, x.earned_high) for n, x in zip(names, last, strict=True)}
        ),
        "prior_optimum": Names({n: x.own_optimum for n, x in zip(names, last, strict=True)}),
    }


def far_numbers(rows: list[off_policy.Row]) -> dict[str, Any]:
    """Of off_policy.csv: gains at the best λ and step size, and what tells the behaviours apart."""
    gains, gains_at, distance, chosen = Names(), Names(), Names(), Names()
    traces = (off_policy.ONE_STEP, *off_policy.TRACES)
    on_cartpole = {f"ε {row.behaviour}; {x}": row for x in traces for row in off_policy.returns(rows, x)}
    for row in rows:
        if row.task == off_policy.CARTPOLE:
            continue
        setting = f"{row.task}; τ {row.temperature:g}; {row.prior}; {row.behaviour}"
        distance[setting] = row.tv
        for kept, name in (
            (gains, f"{setting}; {row.trace}"),
            (gains_at, f"{setting}; {row.trace}; λ {row.lambda_:g}"),
        ):
            if name not in chosen or row.score < chosen[name].score:
                chosen[name], kept[name] = row, Number(*off_policy.gain(row))
    return {
        "gain": gains,
        "gain_at": gains_at,
        "tv": distance,
        "far_cartpole": Names({name: Number(*off_policy.score(row)) for name, row in on_cartpole.items()}),
        "far_cartpole_gain": Names({name: Number(*off_policy.gain(row)) for name, row in on_cartpole.items()}),
        "far_cartpole_tv": Names({name: row.tv for name, row in on_cartpole.items()}),
    }
