"""SAC on Pendulum-v1 with rejax 0.1.3 and gymnax 0.0.9: compiles, trains twice, prints one JSON line."""

import sys

import jax
from rejax import SAC  # type: ignore[import-not-found]
from timing import print_speed


def main(num_seeds: int, hidden: int, batch_size: int, replay_capacity: int, num_updates: int) -> None:
    total = 500 + num_updates
    algorithm = SAC.create(
        env="Pendulum-v1",
        hidden_layer_sizes=(hidden, hidden),
        learning_rate=1e-3,
        num_envs=1,
        num_epochs=1,
        batch_size=batch_size,
        buffer_size=replay_capacity,
        fill_buffer=500,
        total_timesteps=total,
        eval_freq=total,
        skip_initial_evaluation=True,
    ).replace(eval_callback=lambda *_: ())
    keys = jax.random.split(jax.random.PRNGKey(0), num_seeds)
    print_speed(jax.jit(jax.vmap(algorithm.train)), [keys, keys], num_seeds * num_updates)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
