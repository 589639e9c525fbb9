"""PQN on CartPole-v1 with rejax 0.1.3 and gymnax 0.0.9: compiles, trains twice, prints one JSON line."""

import sys

import jax
from rejax import PQN  # type: ignore[import-not-found]
from timing import print_speed


def main(
    num_seeds: int, num_envs: int, num_steps: int, num_epochs: int, num_minibatches: int, total_timesteps: int
) -> None:
    algorithm = PQN.create(
        env="CartPole-v1",
        num_envs=num_envs,
        num_steps=num_steps,
        num_epochs=num_epochs,
        num_minibatches=num_minibatches,
        total_timesteps=total_timesteps,
        eval_freq=total_timesteps,
        skip_initial_evaluation=True,
    ).replace(eval_callback=lambda *_: ())  # its hidden layers are (64, 64)
    keys = [jax.random.split(jax.random.PRNGKey(seed), num_seeds) for seed in range(2)]
    print_speed(jax.jit(jax.vmap(algorithm.train)), keys, num_seeds * total_timesteps)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
