"""SAC with skrl on JAX, whose policy is a Gaussian clipped to the bounds; each run compiles before it is timed."""

import time
from typing import Any

import flax.linen as nn
import gymnasium
import jax.numpy as jnp
import numpy as np
from serving import EPISODES, Trial, serve
from skrl import config  # type: ignore[import-not-found]
from skrl.agents.jax.sac import SAC  # type: ignore[import-not-found]
from skrl.envs.wrappers.jax import wrap_env  # type: ignore[import-not-found]
from skrl.memories.jax import RandomMemory  # type: ignore[import-not-found]
from skrl.models.jax import DeterministicMixin, GaussianMixin, Model  # type: ignore[import-not-found]
from skrl.trainers.jax import SequentialTrainer  # type: ignore[import-not-found]
from skrl.utils import set_seed  # type: ignore[import-not-found]

WARM_UP = 50
"""The first updates, during which the clock does not run."""


def make_classes(hidden_sizes: list[int]) -> tuple[Any, Any]:
    """Policy and critic; Flax makes copies of them by the fields of `Model` alone, so the sizes are no argument."""

    def layers(x: Any) -> Any:
        for size in hidden_sizes:
            x = nn.relu(nn.Dense(size)(x))
        return x

    class Policy(GaussianMixin, Model):
        def __init__(self, **fields: Any) -> None:
            Model.__init__(self, **fields)
            GaussianMixin.__init__(self, clip_actions=True)

        @nn.compact
        def __call__(self, inputs: Any, _: str) -> Any:
            hidden, bound = layers(inputs["observations"]), float(self.action_space.high[0])
            mean = bound * nn.tanh(nn.Dense(self.num_actions)(hidden))
            return mean, {"log_std": nn.Dense(self.num_actions)(hidden)}

    class Critic(DeterministicMixin, Model):
        def __init__(self, **fields: Any) -> None:
            Model.__init__(self, **fields)
            DeterministicMixin.__init__(self)

        @nn.compact
        def __call__(self, inputs: Any, _: str) -> Any:
            both = jnp.concatenate([inputs["observations"], inputs["taken_actions"]], axis=-1)
            return nn.Dense(1)(layers(both)), {}

    return Policy, Critic


def mean_return(model: Any, env_name: str) -> float:
    """Of the policy's mean, over `EPISODES` episodes."""
    env, total = gymnasium.make(env_name), 0.0
    for episode in range(EPISODES):
        obs, is_done = env.reset(seed=episode)[0], False
        while not is_done:
            _, outputs = model.act({"observations": jnp.asarray(obs)[None]}, role="policy")
            obs, reward, terminated, truncated, _ = env.step(np.asarray(outputs["mean_actions"])[0])
            total, is_done = total + float(reward), terminated or truncated
    return total / EPISODES


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
) -> Trial:
    if (num_seeds, num_envs) != (1, 1):
        raise ValueError(f"num_seeds is {num_seeds} and num_envs {num_envs}; both must be 1")
    name = env_id.removeprefix("gymnax/")

    def run(seed: int) -> tuple[float, list[float]]:
        set_seed(seed)
        config.jax.backend = "jax"
        env = wrap_env(gymnasium.make(name))
        spaces = {"observation_space": env.observation_space, "action_space": env.action_space}
        policy_class, critic_class = make_classes(hidden_sizes)
        models = {"policy": policy_class(**spaces)}
        for each in ("critic_1", "critic_2", "target_critic_1", "target_critic_2"):
            models[each] = critic_class(**spaces)
        for role, model in models.items():
            model.init_state_dict(role=role)
        settings = {
            "gradient_steps": updates_per_step,
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "random_timesteps": learning_starts,
            "learning_starts": learning_starts,
            "initial_entropy_value": 1.0,
            "experiment": {"write_interval": 0, "checkpoint_interval": 0},
        }
        memory = RandomMemory(memory_size=replay_capacity, replacement=True)
        agent = SAC(models=models, memory=memory, cfg=settings, **spaces)
        trainer_settings: dict[str, Any] = {
            "headless": True,
            "disable_progressbar": True,
            "close_environment_at_exit": False,
        }
        trainer_settings["timesteps"] = learning_starts + WARM_UP
        trainer = SequentialTrainer(env=env, agents=agent, cfg=trainer_settings)
        trainer.train()
        agent.cfg.random_timesteps = agent.cfg.learning_starts = 0  # it counts from 0 again
        trainer.cfg.timesteps = num_timed = num_steps - WARM_UP
        begin = time.perf_counter()
        trainer.train()
        taken = time.perf_counter() - begin
        return num_timed / taken, [mean_return(models["policy"], name)]

    return Trial(run)


if __name__ == "__main__":
    serve(make, ("skrl", "jax"))
