"""A soft objective in a finite MDP, and its optimum."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsoft.envs.mdp import FiniteMDP
from jaxsoft.tabular.evaluation import expected_return
from jaxsoft.tabular.iteration import soft_policy_iteration

PRECISE = 1e-9
"""Tolerance of the optimum by which learners are measured."""


class Problem(NamedTuple):
    """An objective in a finite MDP; the arrays are float64 in x64, and float32 otherwise."""

    mdp: FiniteMDP
    temperature: float
    reference_log_probs: jax.Array
    max_episode_steps: int

    @property
    def objective(self) -> dict[str, Any]:
        """The keywords of every tabular algorithm."""
        return {"temperature": self.temperature, "reference_log_probs": self.reference_log_probs}

    def mean_return(self, policy: jax.Array) -> jax.Array:
        """[S, A] -> [], the mean return of a policy in the plain task, up to the time limit."""
        return expected_return(self.mdp, policy, max_episode_steps=self.max_episode_steps)


def find_optimum(problem: Problem) -> tuple[np.ndarray, float]:
    """Q* [S, A] and the mean return of its soft policy, in float64 whatever the problem's precision."""
    with jax.enable_x64(True):
        mdp, reference = jax.tree.map(_in_float64, (problem.mdp, problem.reference_log_probs))
        exact = problem._replace(mdp=mdp, reference_log_probs=reference)
        best = soft_policy_iteration(mdp, **exact.objective, tolerance=PRECISE)
        return np.asarray(best.q), float(exact.mean_return(best.policy))


def _in_float64(array: jax.Array) -> jax.Array:
    return jnp.asarray(array, float) if jnp.issubdtype(array.dtype, jnp.floating) else array
