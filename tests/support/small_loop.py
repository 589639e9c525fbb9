"""A small loop for the tests of training."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsoft.envs import make_env
from jaxsoft.training.config import make_config
from jaxsoft.training.loop import make_loop
from jaxsoft.training.state import Loop
from jaxsoft.types import Env

TINY: dict[str, Any] = {
    "total_timesteps": 100,
    "learning_starts": 20,
    "batch_size": 8,
    "replay_capacity": 200,
    "hidden_sizes": (8, 8),
    "learning_rate": 1e-3,
    "eval_every": 40,
    "eval_episodes": 2,
}
SEEDS = np.arange(8, dtype=np.int32)


def a_loop(env: Env, **settings: Any) -> Loop:
    return make_loop(env, make_config("sac", env.spec.id, TINY | settings))


def pendulum() -> Env:
    return make_env("gymnax/Pendulum-v1", max_steps_in_episode=15)


ROLLOUTS: dict[str, Any] = {
    "total_timesteps": 96,
    "num_envs": 4,
    "rollout_length": 4,
    "num_minibatches": 2,
    "hidden_sizes": (8,),
    "normalise_obs": True,
    "scale_rewards": True,
    "exploration": 0.5,
    "final_exploration": 0.1,
    "reference": "average",
    "eval_every": 0,
}
STREAM: dict[str, Any] = {
    "total_timesteps": 24,
    "hidden_sizes": (8,),
    "sparsity": 0.3,
    "eval_every": 0,
}
SEQUENCES: dict[str, Any] = {
    "total_timesteps": 48,
    "num_envs": 2,
    "hidden_sizes": (8,),
    "batch_size": 4,
    "sequence_length": 4,
    "learning_starts": 16,
    "eval_every": 0,
}


def comparable(tree: Any) -> Any:
    """Keys as their data, so that NumPy can look at them."""

    def plain(x: jax.Array) -> np.ndarray:
        is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(x) if is_key else x)

    return jax.tree.map(plain, tree)


def of_seed(state: Any, seed: int) -> Any:
    """One seed's leaves; in a plain vmap every leaf has the seeds in front."""
    return jax.tree.map(lambda x: x[seed], comparable(state))
