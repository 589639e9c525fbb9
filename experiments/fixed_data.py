"""What soft λ-returns learn from a fixed data set: `python experiments/fixed_data.py`, a quarter of an hour on 2 cores.

CartPole, from 50,000 steps of a uniformly random policy, which balances the pole for 20 steps on average: one-step soft
Q-learning (λ = 0) against every trace coefficient and λ. 16 seeds each, every one with a data set of its own. Nobody
acts: the environment only judges what was learned. Numbers that are in fixed_data.csv are kept.
"""

from pathlib import Path

import curves
import jax
import jax.numpy as jnp

import jaxsoft
from jaxsoft.offline import uniform_policy
from jaxsoft.ops.traces import TRACES
from jaxsoft.sweep import seed_keys
from jaxsoft.types import Metrics

LAMBDAS = (0.5, 0.9, 1.0)
NUM_ENVS, NUM_STEPS = 10, 5_000
SHARED = {
    "num_updates": 10_000,
    "eval_every": 500,
    "temperature": 1.0,
    "learning_rate": 1e-3,
    "polyak": 0.99,
    "hidden_sizes": (64, 64),
    "batch_size": 16,
    "sequence_length": 8,
}

ANSWER = """
# Learning from a fixed data set
"""


def cells() -> list[curves.Cell]:
    """One-step soft Q-learning, and every coefficient × λ."""
    settings = {"λ = 0": {"lambda_": 0.0}}
    settings |= {f"{trace}, λ = {lam:g}": {"trace": trace, "lambda_": lam} for trace in TRACES for lam in LAMBDAS}
    return [
        curves.Cell("CartPole", label, "soft_q_replay", "gymnax/CartPole-v1", SHARED | own)
        for label, own in settings.items()
    ]


def train(cell: curves.Cell, num_seeds: int) -> list[curves.Curve]:
    """Trains all seeds in one program, each from its own data; a list of one."""
    env = jaxsoft.make_env(cell.env_id)
    act = uniform_policy(env.spec.action_space, NUM_ENVS)
    learn = jaxsoft.make_offline_train(cell.agent, env, **cell.settings)

    def run(key: jax.Array) -> Metrics:
        data_key, key = jax.random.split(key)
        data = jaxsoft.record(data_key, act, env, num_steps=NUM_STEPS, num_envs=NUM_ENVS)
        return learn(key, data)[1]

    metrics = jax.device_get(jax.jit(jax.vmap(run))(seed_keys(jnp.arange(num_seeds, dtype=jnp.int32))))
    return [curves.Curve(cell.task, cell.label, metrics["timestep"][0], metrics["eval_return"])]


if __name__ == "__main__":
    stem = Path(__file__).with_suffix("")
    curves.main(__doc__ or "", stem, cells(), num_seeds=16, answer=ANSWER, measure=train, unit="gradient steps")
