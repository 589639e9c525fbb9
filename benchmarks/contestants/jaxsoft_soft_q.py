"""Soft Q(λ) on CartPole-v1 with jaxsoft: compiles, trains twice, prints one JSON line."""

import json
import sys
import time

import jax
import jax.numpy as jnp

import jaxsoft


def main(
    num_seeds: int, num_envs: int, num_steps: int, num_epochs: int, num_minibatches: int, total_timesteps: int
) -> None:
    jaxsoft.use_all_cores()
    train = jaxsoft.make_train(
        "soft_q",
        jaxsoft.make_env("gymnax/CartPole-v1"),
        total_timesteps=total_timesteps,
        num_envs=num_envs,
        rollout_length=num_steps,
        num_epochs=num_epochs,
        num_minibatches=num_minibatches,
        hidden_sizes=(64, 64),
        eval_every=0,
    )
    compiled = jaxsoft.spread(train).lower(jax.vmap(jax.random.key)(jnp.arange(num_seeds))).compile()
    speeds = []
    for first_seed in (0, num_seeds):
        keys = jax.vmap(jax.random.key)(first_seed + jnp.arange(num_seeds))
        begin = time.perf_counter()
        jax.block_until_ready(compiled(keys))
        speeds.append(num_seeds * total_timesteps / (time.perf_counter() - begin))
    print(json.dumps({"steps_per_second": max(speeds)}))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
