"""SAC with rejax."""

from typing import Any

import jax
import jax.numpy as jnp
from rejax import SAC  # type: ignore[import-not-found]
from rejax.evaluate import evaluate  # type: ignore[import-not-found]
from serving import EPISODES, Trial, serve
from timing import make_trial


def make(
    env_id: str,
    num_seeds: int,
    num_steps: int,
    num_envs: int,
    updates_per_step: int,
    hidden_sizes: list[int],
    learning_rate: float,
    batch_size: int,
    replay_capacity: int,
    learning_starts: int,
    backend: str | None = None,
) -> Trial:
    total = learning_starts + num_steps
    algorithm = SAC.create(
        env=env_id.removeprefix("gymnax/"),
        env_params={"backend": backend} if backend else {},
        hidden_layer_sizes=tuple(hidden_sizes),
        learning_rate=learning_rate,
        polyak=0.995,
        num_envs=num_envs,
        num_epochs=updates_per_step,
        batch_size=batch_size,
        buffer_size=replay_capacity,
        fill_buffer=learning_starts,
        total_timesteps=total,
        eval_freq=total,
        skip_initial_evaluation=True,
    ).replace(eval_callback=lambda *_: ())
    actor = algorithm.actor

    def mean_return(key: jax.Array, state: Any) -> jax.Array:
        def act(obs: jax.Array, _: jax.Array) -> jax.Array:
            mean = actor.apply(state.actor_ts.params, obs[None], method="_action_dist").loc
            return jnp.squeeze(actor.action_loc + actor.action_scale * jnp.tanh(mean))

        return evaluate(act, key, algorithm.env, algorithm.env_params, EPISODES)[1].mean()

    train = jax.jit(jax.vmap(lambda key: algorithm.train(key)[0]))
    return make_trial(train, mean_return, jax.random.PRNGKey, num_seeds, num_steps)


if __name__ == "__main__":
    serve(make, ("rejax", "gymnax", "jax"))
