"""`jaxsoft tabular METHOD ENV`: whole algorithms on finite MDPs, with a table, a figure and a run folder."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxsoft.cli.options import parse_options
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
from jaxsoft.cli.tabular.problem import make_problem, read_array
from jaxsoft.cli.tabular.solving import evaluate_policy, iterate_policies, iterate_values, report
from jaxsoft.errors import InputError, nearest
from jaxsoft.ops.traces import check_trace
from jaxsoft.tabular.n_step import window_rule
from jaxsoft.tabular.soft_q_lambda import trace_rule

USAGE = """\
usage: jaxsoft tabular METHOD ENV [options]

{methods}

  ENV is a finite MDP, for example finite/Taxi-v3 or finite/Chain-20: `jaxsoft list` shows them.
  `jaxsoft tabular METHOD --help` shows the options of a method.
"""

Description = dict[str, Any]
"""What `config.json` says of a run."""


class Method(NamedTuple):
    """What a method does in one line, the class of its options, how it runs in a new folder, and in which precision."""

    summary: str
    options: type[Options]
    run: Callable[[Path, Description, Any], None]
    x64: bool


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
    options = parse_options(METHODS[name].options, f"jaxsoft tabular {name}", argv[1:])
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()}
    del settings["out"]
    with jax.enable_x64(METHODS[name].x64):
        METHODS[name].run(options.out or _new_folder(name, options.env), {"method": name} | settings, options)


def _new_folder(name: str, env_id: str) -> Path:
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{name}-{env_id.split('/')[-1]}-{stamp}"


def _iterate_policies(out: Path, description: Description, options: PolicyIterationOptions) -> None:
    sizes = {"max_sweeps": options.max_sweeps, "max_iterations": options.max_iterations}
    report(out, description, iterate_policies(make_problem(options), tolerance=options.tolerance, **sizes))


def _iterate_values(out: Path, description: Description, options: ValueIterationOptions) -> None:
    problem = make_problem(options)
    report(out, description, iterate_values(problem, tolerance=options.tolerance, max_sweeps=options.max_sweeps))


def _evaluate(out: Path, description: Description, options: EvaluationOptions) -> None:
    problem = make_problem(options)
    policy = None if options.policy == "uniform" else read_array("policy", options.policy)
    tolerance = options.tolerance
    report(out, description, evaluate_policy(problem, policy, tolerance=tolerance, max_sweeps=options.max_sweeps))


def _learn_one_step(out: Path, description: Description, options: LearningOptions) -> None:
    learn(out, description, options, trace_rule("tree_backup"), lambda_=0.0)


def _learn_with_traces(out: Path, description: Description, options: SoftQLambdaOptions) -> None:
    check_trace(options.trace)
    learn(out, description, options, trace_rule(options.trace), lambda_=options.lambda_)


def _learn_n_steps(out: Path, description: Description, options: NStepOptions) -> None:
    learn(out, description, options, window_rule(options.backup, options.n, options.penalty), lambda_=1.0)


METHODS = {
    "soft-policy-iteration": Method("evaluate and improve in turn", PolicyIterationOptions, _iterate_policies, True),
    "soft-value-iteration": Method("sweep the optimality equation", ValueIterationOptions, _iterate_values, True),
    "soft-policy-evaluation": Method("the values of one policy", EvaluationOptions, _evaluate, True),
    "soft-q-learning": Method("act and learn, one step at a time", LearningOptions, _learn_one_step, False),
    "soft-q-lambda": Method("act and learn with eligibility traces", SoftQLambdaOptions, _learn_with_traces, False),
    "n-step-soft-q": Method("act and learn from n-step returns", NStepOptions, _learn_n_steps, False),
}
