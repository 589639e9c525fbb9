"""Any of jaxsoft's agents."""

from typing import Any

import jax
import jax.numpy as jnp
from serving import EPISODES, Trial, serve
from timing import make_trial

import jaxsoft
from jaxsoft.training.config import make_config
from jaxsoft.training.evaluation import evaluate
from jaxsoft.training.loop import make_agent


def make(agent: str, env_id: str, num_seeds: int, num_steps: int, backend: str | None = None, **settings: Any) -> Trial:
    jaxsoft.use_all_cores()
    env = jaxsoft.make_env(env_id, **({"backend": backend} if backend else {}))
    settings |= {"total_timesteps": settings.get("learning_starts", 0) + num_steps, "eval_every": 0}
    learner = make_agent(env, make_config(agent, env.spec.id, settings))
    train = jaxsoft.make_train(agent, env, **settings)

    def mean_return(key: jax.Array, state: Any) -> jax.Array:
        def act(key: jax.Array, obs: jax.Array) -> jax.Array:
            return learner.act(key, state.agent_state, obs, deterministic=True)[0]

        return jnp.mean(evaluate(key, act, env, EPISODES).returns)

    return make_trial(jaxsoft.spread(lambda key: train(key)[0]), mean_return, jax.random.key, num_seeds, num_steps)


if __name__ == "__main__":
    serve(make, ("jaxsoft", "jax"))
