"""SAC with jaxsoft: compiles, trains twice, prints one JSON line."""

import sys

import jax
import jax.numpy as jnp
from timing import print_speed

import jaxsoft

LEARNING_STARTS = {"gymnax/Pendulum-v1": 500, "brax/hopper": 1_000}


def main(env_id: str, num_seeds: int, hidden: int, batch_size: int, replay_capacity: int, num_updates: int) -> None:
    jaxsoft.use_all_cores()
    env, learning_starts = jaxsoft.make_env(env_id), LEARNING_STARTS[env_id]
    train = jaxsoft.make_train(
        "sac",
        env,
        total_timesteps=learning_starts + num_updates,
        learning_starts=learning_starts,
        learning_rate=1e-3,
        hidden_sizes=(hidden, hidden),
        batch_size=batch_size,
        replay_capacity=replay_capacity,
        eval_every=0,
    )
    keys = jax.vmap(jax.random.key)(jnp.arange(num_seeds))
    print_speed(jaxsoft.spread(train), [keys, keys], num_seeds * num_updates)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
