"""SAC judged by its policy's mode and by samples from it: `python experiments/stochastic_evaluation.py`, 15 minutes.

Both at the same moments of the same trainings, 8 seeds each. Numbers that are in stochastic_evaluation.csv are kept.
"""

from pathlib import Path

import algorithms
import curves
import jax
import jax.numpy as jnp
import numpy as np

import jaxsoft
from jaxsoft.fleet.programs import seed_keys
from jaxsoft.training.config import make_config
from jaxsoft.training.evaluation import evaluate
from jaxsoft.training.loop import advance, init, make_loop
from jaxsoft.training.schedule import segments
from jaxsoft.training.state import TrainState

TASKS = ("Pendulum", "MountainCarContinuous", "reacher")
MODES = ("deterministic", "stochastic")

ANSWER = """
# Deterministic or stochastic evaluation

Once it has learned, the mode of SAC's policy is no worse than samples from it. On Pendulum the two earn the same. On
MountainCarContinuous they end alike, and samples are behind while the temperature still falls. On reacher, where every
action costs its square, noise costs all the time: samples earn 4 less on average over the training and 0.8 less at its
end, as the temperature has fallen. So a policy is judged by its mode here, which is what `jaxsoft eval` does unless it
is told `--stochastic`.
"""


def train(cell: curves.Cell, num_seeds: int) -> list[curves.Curve]:
    """Trains all seeds in one program; at every report the policy is judged both ways, from the same starts."""
    env = jaxsoft.make_env(cell.env_id)
    config = make_config(cell.agent, env.spec.id, cell.settings)
    loop = make_loop(env, config)

    def judge(state: TrainState, deterministic: bool) -> jax.Array:
        def act(key: jax.Array, obs: jax.Array) -> jax.Array:
            return loop.agent.act(key, state.agent_state, obs, deterministic=deterministic)[0]

        key = jax.random.fold_in(state.key, 0)
        return jnp.mean(evaluate(key, act, env, config.eval_episodes).returns)

    def epoch(state: TrainState, num_turns: jax.Array) -> tuple[TrainState, tuple[jax.Array, ...]]:
        state = advance(state, num_turns, loop)
        return state, (state.timestep, *(judge(state, mode == "deterministic") for mode in MODES))

    def run(key: jax.Array) -> tuple[jax.Array, ...]:
        return jax.lax.scan(epoch, init(key, loop), jnp.asarray(segments(config)))[1]

    timesteps, *returns = jaxsoft.spread(run)(seed_keys(jnp.arange(num_seeds, dtype=jnp.int32)))
    return [
        curves.Curve(cell.task, f"{cell.label}, {mode}", np.asarray(timesteps[0]), np.asarray(scores))
        for mode, scores in zip(MODES, returns, strict=True)
    ]


if __name__ == "__main__":
    ours = [cell for cell in algorithms.cells() if cell.label == "SAC" and cell.task in TASKS]
    curves.main(__doc__ or "", Path(__file__).with_suffix(""), ours, num_seeds=8, answer=ANSWER, measure=train)
