"""The options of every tabular method, with the library's names and defaults."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True)
class Options:
    """The options of every method."""

    env: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="ENV")]
    """Finite MDP, for example finite/Taxi-v3."""
    temperature: float = 0.1
    """τ, the price of a nat of divergence from the reference policy, in units of reward."""
    reference: str = "uniform"
    """Reference policy π0: uniform, zeros (the counting measure: maximum entropy) or a .npy file of log π0 [S, A]."""
    discount: float | None = None
    """γ; by default the MDP's own."""
    max_episode_steps: int | None = None
    """Time limit of an episode, a truncation; by default the environment's own."""
    out: Path | None = None
    """Run folder to write; by default a new one in runs/."""


@dataclass(frozen=True)
class ValueIterationOptions(Options):
    """Soft value iteration: sweeps of the optimality equation, in float64."""

    tolerance: float = 1e-6
    """Largest change of V in the last sweep, in units of reward."""
    max_sweeps: int = 20_000
    """Sweeps after which it stops in any case."""


@dataclass(frozen=True)
class EvaluationOptions(ValueIterationOptions):
    """Soft policy evaluation: the values of one policy, in float64."""

    policy: str = "uniform"
    """Policy to evaluate: uniform, or a .npy file of probabilities [S, A]."""


@dataclass(frozen=True)
class PolicyIterationOptions(ValueIterationOptions):
    """Soft policy iteration: evaluates and improves in turn, in float64."""

    max_iterations: int = 100
    """Policies evaluated at most; --tolerance and --max-sweeps are those of each evaluation."""


@dataclass(frozen=True)
class LearningOptions(Options):
    """Soft Q-learning, one step at a time."""

    num_steps: int = 10_000
    """Environment steps of each seed."""
    num_seeds: int = 1
    """Seeds that learn side by side."""
    seed: int = 0
    """The first seed; the others follow it."""
    step_size: float = 0.1
    """α, above 0 and at most 1."""
    half_life: float | None = None
    """Steps after which the step size is half as large, α_t = α / (1 + t / half_life); by default it stays."""
    behaviour: str = "uniform"
    """Who acts: uniform, on_policy, boltzmann, epsilon_greedy, or a .npy file of probabilities [S, A]."""
    behaviour_temperature: float | None = None
    """Temperature of --behaviour boltzmann."""
    epsilon: float | None = None
    """Share of random actions of --behaviour epsilon_greedy."""
    num_records: int | None = None
    """Reports on the way, a divisor of the steps; by default about 20."""


@dataclass(frozen=True)
class SoftQLambdaOptions(LearningOptions):
    """Online Soft Q(λ) with eligibility traces."""

    lambda_: Annotated[float, tyro.conf.arg(name="lambda")] = 0.9
    """λ, between 0 (one-step soft Q-learning) and 1."""
    trace: str = "tree_backup"
    """What multiplies a trace at each step: tree_backup, retrace, importance_sampling, uncorrected or watkins."""


@dataclass(frozen=True)
class NStepOptions(LearningOptions):
    """Learning from n-step returns."""

    n: int = 3
    """Steps of a return."""
    backup: str = "tree_backup"
    """tree_backup (no bias, whatever the behaviour), or on_policy (biased unless the target policy itself acts)."""
    penalty: str = "full"
    """Of --backup on_policy: full (the divergence of each state) or sampled (the log-ratio of the action taken)."""
