"""Does SAC's mode earn more than samples from its policy? `python experiments/stochastic_evaluation.py`, 15 minutes.

Both are judged at the same moments of the same trainings, 8 seeds each. `jaxsoft train` judges a policy in one way
only, so that these are no run directories. Numbers that are in stochastic_evaluation.csv are kept.
"""

from pathlib import Path

import algorithms
import curves
import jax
import jax.numpy as jnp

import jaxsoft
from jaxsoft.runs.tables import CellReturns
from jaxsoft.training.evaluation import evaluate
from jaxsoft.training.loop import advance, init, make_loop
from jaxsoft.training.schedule import segments
from jaxsoft.training.state import TrainState
from jaxsoft.types import Metrics

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


def train(_: Path, run: curves.Run) -> curves.Curves:
    """Trains all seeds in one program; at every report the policy is judged both ways, from the same starts."""
    env, config = jaxsoft.make_env(run.config.env_id), run.config.train
    loop = make_loop(env, config)

    def judge(state: TrainState, deterministic: bool) -> jax.Array:
        def act(key: jax.Array, obs: jax.Array) -> jax.Array:
            return loop.agent.act(key, state.agent_state, obs, deterministic=deterministic)[0]

        key = jax.random.fold_in(state.key, 0)
        return jnp.mean(evaluate(key, act, env, config.eval_episodes).returns)

    def epoch(state: TrainState, num_turns: jax.Array) -> tuple[TrainState, Metrics]:
        state = advance(state, num_turns, loop)
        returns = {mode: judge(state, mode == "deterministic") for mode in MODES}
        return state, {"timestep": state.timestep} | returns

    def learn(key: jax.Array) -> Metrics:
        return jax.lax.scan(epoch, init(key, loop), jnp.asarray(segments(config)))[1]

    found = curves.map_seeds(learn, run.config.num_seeds)
    return {(run.task, f"{run.label}, {mode}"): CellReturns({}, found["timestep"][0], found[mode].T) for mode in MODES}


if __name__ == "__main__":
    runs = [algorithms.make_run(task, "sac", "SAC") for task in TASKS]
    curves.main(__doc__, Path(__file__).with_suffix(""), runs, answer=ANSWER, measure=train)
