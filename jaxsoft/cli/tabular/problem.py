"""The options of a tabular command as arrays: the MDP, the reference policy, the behaviour policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsoft.cli.tabular.options import LearningOptions, Options
from jaxsoft.envs import finite
from jaxsoft.envs.mdp import FiniteMDP
from jaxsoft.errors import InputError, nearest
from jaxsoft.tabular import expected_return, soft_policy_iteration
from jaxsoft.tabular.behaviour import Behaviour, BoltzmannBehaviour, EpsilonGreedy, Fixed, OnPolicy, Uniform

PRECISE = 1e-9
"""Tolerance of the optimum by which learners are measured."""


class Problem(NamedTuple):
    """An objective in a finite MDP; the arrays are float64 in x64, and float32 otherwise."""

    env_id: str
    mdp: FiniteMDP
    temperature: float
    reference_log_probs: jax.Array
    max_episode_steps: int

    @property
    def objective(self) -> dict[str, Any]:
        """The keywords of every tabular algorithm."""
        return {"temperature": self.temperature, "reference_log_probs": self.reference_log_probs}


def make_problem(options: Options) -> Problem:
    """The problem in JAX's present precision.

    Raises:
        InputError: no such MDP, a number out of range, or a reference file that cannot be read.
    """
    suite, _, name = options.env.partition("/")
    if suite != "finite":
        known = [f"finite/{name}" for name in finite.names()]
        raise InputError(
            f"{options.env!r} is no finite MDP{nearest(options.env, known)} (there are: {', '.join(known)})"
        )
    params = {} if options.discount is None else {"discount": options.discount}
    limit = {} if options.max_episode_steps is None else {"max_episode_steps": options.max_episode_steps}
    mdp = finite.make_mdp(name, **params)
    max_episode_steps = finite.make(name, **limit).spec.max_episode_steps
    shape = mdp.num_states, mdp.num_actions
    if options.reference == "uniform":
        reference = np.full(shape, -np.log(shape[1]))
    elif options.reference == "zeros":
        reference = np.zeros(shape)
    else:
        reference = read_array("reference", options.reference)
    reference = jnp.asarray(reference, mdp.rewards.dtype)
    return Problem(options.env, mdp, options.temperature, reference, max_episode_steps)


def make_behaviour(options: LearningOptions) -> Behaviour:
    """The policy that acts.

    Raises:
        InputError: there is no such behaviour, its number is missing, or a number belongs to another one.
    """
    if options.behaviour != "boltzmann" and options.behaviour_temperature is not None:
        raise InputError(f"behaviour_temperature is that of boltzmann, but behaviour is {options.behaviour}")
    if options.behaviour != "epsilon_greedy" and options.epsilon is not None:
        raise InputError(f"epsilon is that of epsilon_greedy, but behaviour is {options.behaviour}")
    match options.behaviour:
        case "uniform":
            return Uniform()
        case "on_policy":
            return OnPolicy()
        case "boltzmann":
            if options.behaviour_temperature is None:
                raise InputError("behaviour boltzmann needs --behaviour-temperature")
            return BoltzmannBehaviour(options.behaviour_temperature)
        case "epsilon_greedy":
            if options.epsilon is None:
                raise InputError("behaviour epsilon_greedy needs --epsilon")
            return EpsilonGreedy(options.epsilon)
        case name if name.endswith(".npy"):
            return Fixed(jnp.asarray(read_array("behaviour", name)))
        case name:
            known = ("uniform", "on_policy", "boltzmann", "epsilon_greedy")
            raise InputError(
                f"unknown behaviour {name!r}{nearest(name, known)} (there are: {', '.join(known)}, FILE.npy)"
            )


def read_array(option: str, file: str) -> np.ndarray:
    """The numbers in a .npy file; nothing in it is executed.

    Raises:
        InputError: it cannot be read, or does not hold numbers.
    """
    if not file.endswith(".npy"):
        raise InputError(f"{option} is {file!r}; it must be one of its names (see --help) or a .npy file")
    try:
        array = np.load(Path(file), allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise InputError(f"{option} cannot be read from {file}: {reason}") from None
    if not (isinstance(array, np.ndarray) and np.issubdtype(array.dtype, np.number)):
        raise InputError(f"{option} in {file} does not hold numbers")
    return np.asarray(array, np.float64)


def find_optimum(problem: Problem) -> tuple[np.ndarray, float]:
    """Q* [S, A] and the mean return of its soft policy in the plain task, in float64 whatever the problem's precision.

    Raises:
        InputError: see `soft_policy_iteration`.
    """
    with jax.enable_x64(True):
        mdp, reference = jax.tree.map(_in_float64, (problem.mdp, problem.reference_log_probs))
        best = soft_policy_iteration(
            mdp, **problem._replace(reference_log_probs=reference).objective, tolerance=PRECISE
        )
        gained = expected_return(mdp, best.policy, max_episode_steps=problem.max_episode_steps)
        return np.asarray(best.q), float(gained)


def _in_float64(array: jax.Array) -> jax.Array:
    return jnp.asarray(array, float) if jnp.issubdtype(array.dtype, jnp.floating) else array
