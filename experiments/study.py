"""Writes docs/soft_q_lambda.md and its figures: `python experiments/study.py`, seconds; nothing is trained.

The page's words stand in docs/soft_q_lambda.in.md, where every number that was measured is a name in braces:

    {deep[Acrobot; retrace; λ 0.9; τ 0.1]:.0f}           −91 [−96, −88], a cell of deep_soft_q.csv
    {deep[Acrobot; retrace; λ 0.9; τ 0.1].point:.0f}     −91
    {costs}                                               a table

`sources()` says which names there are; `study_numbers.py` reads them from what the experiments committed. A name that
is none is an error, and `tests/experiments/test_study.py` fails where a measured number was typed by hand, the page is
not what this script makes of its words, or a verdict in words is not that of the numbers.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import convergence
import deep_soft_q
import lambda_on_cartpole
import off_policy
import reference_policies
import soft_q_lambda
import study_figures
from off_policy_numbers import CARTPOLE_SETTINGS as CARTPOLE
from rows import read_rows
from soft_q_lambda_numbers import DIVERGED_ABOVE
from study_numbers import Names, read_numbers
from study_tables import make_tables

from jaxsoft.agents import soft_q
from jaxsoft.training.config import make_config

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "soft_q_lambda.md"
WORDS = PAGE.with_suffix(".in.md")
NOTE = "<!-- Made by experiments/study.py of soft_q_lambda.in.md: edit that. -->"


def main() -> None:
    study_figures.draw_all(
        read_rows(off_policy.ROWS, off_policy.Row),
        deep_soft_q.read(),
        read_rows(lambda_on_cartpole.ROWS, lambda_on_cartpole.Cell),
    )
    PAGE.write_text(make_page())


def make_page() -> str:
    """The words with their numbers; a minus is a minus."""
    title, _, rest = WORDS.read_text().format(**sources()).partition("\n")
    return re.sub(r"(?<![\w-])-(?=\d)", "−", f"{title}\n\n{NOTE}\n{rest}")


def sources() -> dict[str, Any]:
    """What the words may name: numbers, tables, and settings of the experiments."""
    return read_numbers() | make_tables() | settings()


def settings() -> dict[str, Any]:
    """How many seeds, steps and rollouts the experiments have, and the rest that is set and not measured."""
    task, preset = deep_soft_q.TASKS["CartPole"], make_config("soft_q", lambda_on_cartpole.CARTPOLE, {})
    length = cast(soft_q.Config, preset.agent).rollout_length
    budgets = [task.total_timesteps for task in deep_soft_q.TASKS.values()]
    rows = read_rows(off_policy.ROWS, off_policy.Row)
    garnets = off_policy.select(rows, task=off_policy.GARNET, trace="retrace", lambda_=off_policy.LAMBDAS[0])
    return {
        "seeds": Names(
            tables=soft_q_lambda.NUM_SEEDS,
            deep=deep_soft_q.NUM_SEEDS,
            far=off_policy.NUM_SEEDS,
            cartpole_far=off_policy.CARTPOLE_SEEDS,
            wide=lambda_on_cartpole.WIDE.num_seeds,
        ),
        "steps": Names(
            tables=soft_q_lambda.NUM_STEPS,
            cartpole=CARTPOLE["total_timesteps"],
            fewest=min(budgets),
            most=max(budgets),
        ),
        "rollouts": Names(
            networks=task.total_timesteps // (task.settings["num_envs"] * task.settings["rollout_length"]),
            cartpole=CARTPOLE["total_timesteps"] // (preset.num_envs * length),
        ),
        "width": CARTPOLE["hidden_sizes"][0],
        "rollout": length,
        "diverged_above": DIVERGED_ABOVE,
        "num_cases": len(soft_q_lambda.CASES),
        "num_mdps": convergence.NUM_MDPS,
        "table_runs": soft_q_lambda.num_runs(),
        "garnet_runs": sum(row.num_seeds for row in garnets),
        "step_sizes": (min(off_policy.STEP_SIZES), max(off_policy.STEP_SIZES)),
        "priors": reference_policies.PRIORS,
    }


if __name__ == "__main__":
    main()
