"""PQN with purejaxql: its network for vectors, or that for MinAtar's images."""

import sys
from types import ModuleType
from typing import Any

sys.modules["wandb"] = ModuleType("wandb")  # imported, and not used where nothing is logged

import gymnax  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from purejaxql import pqn_gymnax, pqn_minatar  # type: ignore[import-not-found] # noqa: E402
from serving import EPISODES, Trial, serve  # noqa: E402
from timing import make_trial  # noqa: E402


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
    name = env_id.removeprefix("gymnax/")
    config = {
        "ENV_NAME": name,
        "TOTAL_TIMESTEPS": num_steps,
        "TOTAL_TIMESTEPS_DECAY": num_steps,
        "NUM_ENVS": num_envs,
        "NUM_STEPS": rollout_length,
        "NUM_EPOCHS": num_epochs,
        "NUM_MINIBATCHES": num_minibatches,
        "EPS_START": 1.0,
        "EPS_FINISH": 0.05,
        "EPS_DECAY": 0.1,
        "NORM_TYPE": "layer_norm",
        "LR": learning_rate,
        "LR_LINEAR_DECAY": False,
        "MAX_GRAD_NORM": 10,
        "GAMMA": 0.99,
        "LAMBDA": lambda_,
        "WANDB_MODE": "disabled",
    }
    env, params = gymnax.make(name)
    num_actions = env.action_space(params).n  # type: ignore[attr-defined]
    if len(env.observation_space(params).shape) == 3:  # type: ignore[attr-defined]
        module, network = pqn_minatar, pqn_minatar.QNetwork(num_actions)
        if hidden_sizes != [128]:
            raise ValueError(f"hidden_sizes is {hidden_sizes}; purejaxql's network for images has [128]")
    else:
        sizes = {"hidden_size": hidden_sizes[0], "num_layers": len(hidden_sizes)}
        if len(set(hidden_sizes)) != 1:
            raise ValueError(f"hidden_sizes is {hidden_sizes}; purejaxql's are all alike")
        module, network = pqn_gymnax, pqn_gymnax.QNetwork(num_actions, **sizes)
        config |= {name.upper(): value for name, value in sizes.items()}

    def mean_return(key: jax.Array, state: Any) -> jax.Array:
        variables = {"params": state.params, "batch_stats": state.batch_stats}

        def step(carry: Any, key: jax.Array) -> tuple[Any, None]:
            obs, env_state, total, running = carry
            actions = network.apply(variables, obs, train=False).argmax(-1)
            keys = jax.random.split(key, EPISODES)
            obs, env_state, reward, done, _ = jax.vmap(env.step, (0, 0, 0, None))(keys, env_state, actions, params)
            return (obs, env_state, total + running * reward, running & ~done), None

        key, reset_key = jax.random.split(key)
        obs, env_state = jax.vmap(env.reset, (0, None))(jax.random.split(reset_key, EPISODES), params)
        start = (obs, env_state, jnp.zeros(EPISODES), jnp.ones(EPISODES, bool))
        keys = jax.random.split(key, params.max_steps_in_episode)
        return jax.lax.scan(step, start, keys)[0][2].mean()

    learn = module.make_train(config)
    train = jax.jit(jax.vmap(lambda key: learn(key)["runner_state"][0]))
    return make_trial(train, mean_return, jax.random.PRNGKey, num_seeds, num_steps)


if __name__ == "__main__":
    serve(make, ("purejaxql", "gymnax", "jax"))
