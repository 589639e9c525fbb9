"""Soft Q(λ) on CartPole-v1 with jaxsoft: compiles, trains twice, prints one JSON line."""

import sys

import jax
import jax.numpy as jnp
from timing import print_speed

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
    keys = [jax.vmap(jax.random.key)(first + jnp.arange(num_seeds)) for first in (0, num_seeds)]
    print_speed(jaxsoft.spread(train), keys, num_seeds * total_timesteps)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
