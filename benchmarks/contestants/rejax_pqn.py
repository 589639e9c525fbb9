"""PQN with rejax; its hidden layers are (64, 64)."""

from typing import Any

import jax
from rejax import PQN  # type: ignore[import-not-found]
from rejax.evaluate import evaluate  # type: ignore[import-not-found]
from serving import EPISODES, Trial, serve
from timing import make_trial


def make(
    env_id: str,
    num_seeds: int,
    num_steps: int,
    num_envs: int,
    rollout_length: int,
    num_epochs: int,
    num_minibatches: int,
    hidden_sizes: list[int],
    learning_rate: float,
    lambda_: float,
) -> Trial:
    if hidden_sizes != [64, 64]:
        raise ValueError(f"hidden_sizes is {hidden_sizes}; rejax's PQN has [64, 64]")
    algorithm = PQN.create(
        env=env_id.removeprefix("gymnax/"),
        learning_rate=learning_rate,
        td_lambda=lambda_,
        num_envs=num_envs,
        num_steps=rollout_length,
        num_epochs=num_epochs,
        num_minibatches=num_minibatches,
        total_timesteps=num_steps,
        eval_freq=num_steps,
        skip_initial_evaluation=True,
    ).replace(eval_callback=lambda *_: ())

    def mean_return(key: jax.Array, state: Any) -> jax.Array:
        def act(obs: jax.Array, _: jax.Array) -> jax.Array:
            return algorithm.agent.apply(state.q_ts.params, obs[None])[0].argmax()

        return evaluate(act, key, algorithm.env, algorithm.env_params, EPISODES)[1].mean()

    train = jax.jit(jax.vmap(lambda key: algorithm.train(key)[0]))
    return make_trial(train, mean_return, jax.random.PRNGKey, num_seeds, num_steps)


if __name__ == "__main__":
    serve(make, ("rejax", "gymnax", "jax"))
