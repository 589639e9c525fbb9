"""`jaxsoft tabular METHOD ENV`: whole algorithms on finite MDPs, with a table, a figure and a run folder."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from jaxsoft.cli.options import new_folder, parse_options
from jaxsoft.cli.tabular.learning import learn
from jaxsoft.cli.tabular.options import (
    EvaluationOptions,
    LearningOptions,
    NStepOptions,
    Options,
    PolicyIterationOptions,
    SoftQLambdaOptions,
    ValueIterationOptions,
)
from jaxsoft.cli.tabular.solving import evaluate_policy, iterate_policies, iterate_values, solve
from jaxsoft.errors import InputError, nearest
from jaxsoft.tabular.n_step import window_rule
from jaxsoft.tabular.online import Rule
from jaxsoft.tabular.soft_q_lambda import trace_rule

USAGE = """\
usage: jaxsoft tabular METHOD ENV [options]

{methods}

  ENV is a finite MDP, for example finite/Taxi-v3 or finite/Chain-20: `jaxsoft list` shows them.
  `jaxsoft tabular METHOD --help` shows the options of a method.
"""


class Method(NamedTuple):
    """A method in one line, the class of its options, and `run(out, description, options)`."""

    summary: str
    options: type[Options]
    run: Callable[..., None]


def _one_step_rule(_: LearningOptions) -> tuple[Rule, float]:
    return trace_rule("tree_backup"), 0.0


def _traced_rule(options: SoftQLambdaOptions) -> tuple[Rule, float]:
    return trace_rule(options.trace), options.lambda_


def _n_step_rule(options: NStepOptions) -> tuple[Rule, float]:
    return window_rule(options.backup, options.n, options.penalty), 1.0


METHODS = {
    "soft-policy-iteration": Method(
        "evaluate and improve in turn", PolicyIterationOptions, partial(solve, iterate_policies)
    ),
    "soft-value-iteration": Method(
        "sweep the optimality equation", ValueIterationOptions, partial(solve, iterate_values)
    ),
    "soft-policy-evaluation": Method("the values of one policy", EvaluationOptions, partial(solve, evaluate_policy)),
    "soft-q-learning": Method("act and learn, one step at a time", LearningOptions, partial(learn, _one_step_rule)),
    "soft-q-lambda": Method("act and learn with eligibility traces", SoftQLambdaOptions, partial(learn, _traced_rule)),
    "n-step-soft-q": Method("act and learn from n-step returns", NStepOptions, partial(learn, _n_step_rule)),
}


def tabular_command(argv: list[str]) -> None:
    """`jaxsoft tabular METHOD ENV [options]`."""
    if not argv or argv[0] in ("-h", "--help"):
        width = max(map(len, METHODS))
        methods = "\n".join(f"  {name:<{width}}   {method.summary}" for name, method in METHODS.items())
        print(USAGE.format(methods=methods), end="")
        return
    name = argv[0].replace("_", "-")
    if name not in METHODS:
        raise InputError(f"unknown method {argv[0]!r}{nearest(name, METHODS)} ({', '.join(METHODS)})")
    method = METHODS[name]
    options = parse_options(method.options, f"jaxsoft tabular {name}", argv[1:])
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()}
    description = {"method": name} | {key: value for key, value in settings.items() if key != "out"}
    method.run(options.out or new_folder(f"{name}-{options.env.split('/')[-1]}"), description, options)
