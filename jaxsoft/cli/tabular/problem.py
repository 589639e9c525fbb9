"""The options of a tabular command as arrays: the MDP, the reference policy, the behaviour policy."""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
import numpy as np

from jaxsoft.cli.tabular.options import LearningOptions, Options
from jaxsoft.envs import finite
from jaxsoft.errors import InputError, nearest
from jaxsoft.tabular.behaviour import Behaviour, BoltzmannBehaviour, EpsilonGreedy, Fixed, OnPolicy, Uniform
from jaxsoft.tabular.problem import Problem


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
    if options.reference in ("uniform", "zeros"):
        reference = np.full(shape, -np.log(shape[1]) if options.reference == "uniform" else 0.0)
    else:
        reference = read_array("reference", options.reference)
    return Problem(mdp, options.temperature, jnp.asarray(reference, mdp.rewards.dtype), max_episode_steps)


def make_behaviour(options: LearningOptions) -> Behaviour:
    """The policy that acts.

    Raises:
        InputError: there is no such behaviour, its number is missing, or a number belongs to another one.
    """
    numbers = {"boltzmann": "behaviour_temperature", "epsilon_greedy": "epsilon"}
    for name, number in numbers.items():
        if options.behaviour != name and getattr(options, number) is not None:
            raise InputError(f"{number} is that of {name}, but behaviour is {options.behaviour}")
        if options.behaviour == name and getattr(options, number) is None:
            raise InputError(f"behaviour {name} needs --{number.replace('_', '-')}")
    known = {
        "uniform": Uniform,
        "on_policy": OnPolicy,
        "boltzmann": BoltzmannBehaviour,
        "epsilon_greedy": EpsilonGreedy,
    }
    chosen = options.behaviour
    if chosen.endswith(".npy"):
        return Fixed(jnp.asarray(read_array("behaviour", chosen)))
    if chosen not in known:
        raise InputError(
            f"unknown behaviour {chosen!r}{nearest(chosen, known)} (there are: {', '.join(known)}, FILE.npy)"
        )
    return known[chosen](*([getattr(options, numbers[chosen])] if chosen in numbers else []))


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
