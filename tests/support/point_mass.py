"""An environment of one's own, as the guide docs/own_environments.md builds it: it imports public names only."""

import jax
import jax.numpy as jnp
import numpy as np

import jaxsoft
from jaxsoft import Box, Env, EnvSpec, make_time_step


def make(mass: float = 1.0, max_episode_steps: int = 100) -> Env:
    """A point in the plane is pushed to the middle: reward −|position|² − 0.01 |force|² a step."""
    bound = np.ones(2, np.float32)
    spec = EnvSpec("own/PointMass", (4,), np.dtype("float32"), Box(-bound, bound), max_episode_steps)

    def reset(key):
        position, velocity = jax.random.uniform(key, (2,), minval=-1, maxval=1), jnp.zeros(2)
        return (position, velocity), make_time_step(jnp.concatenate([position, velocity]))

    def step(key, state, action):
        position, velocity = state
        velocity = 0.9 * velocity + 0.1 * action / mass
        position = position + velocity
        reward = -jnp.sum(position**2) - 0.01 * jnp.sum(action**2)
        far = jnp.max(jnp.abs(position)) > 3
        return (position, velocity), make_time_step(jnp.concatenate([position, velocity]), reward, terminated=far)

    def render(state):
        picture = np.full((160, 160, 3), 255, np.uint8)
        for size, colour, (x, y) in ((8, (60, 80, 180), state[0]), (4, (0, 150, 0), (0, 0))):
            row, column = np.clip([80 - 25 * y, 80 + 25 * x], 10, 150).astype(int)
            picture[row - size : row + size, column - size : column + size] = colour
        return picture

    return Env(spec, reset, step, render)


jaxsoft.register_env("own/PointMass", make)
