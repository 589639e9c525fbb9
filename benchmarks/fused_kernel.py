"""SAC's update as one kernel, written in Pallas: one program instance updates one member.

Targets, both critics, the policy, the temperature, Adam and the slow critics. Parameters and moments are written once,
and gradients and activations never: they stay in registers and shared memory, or are spilled from there. So it is for
small networks: two hidden layers of one width and batches of 16, 32 or 64, and at most 16 numbers in an observation or
an action. Products are TF32, as JAX's own are on this card; those of the first layer, too, which jaxsoft sums in
float32.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from jaxsoft.agents import sac
from jaxsoft.nn.networks import LOG_STD_BOUNDS
from jaxsoft.types import Metrics, Transition

WIDTH = 16
"""Numbers that observations and actions are padded to: the smallest side of a product in Triton."""

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8
"""Of `optax.adam`."""

NUM_WARPS = 4
"""Of a program instance, by default: with 8 only one instance fits a multiprocessor at a time."""


class Part(NamedTuple):
    """A block of a parameter array, padded with zeros to powers of 2 where a kernel holds it.

    Attributes:
        path: of the array in the tree of parameters.
        axes: for each axis of the array an index, or (first, number, padded number).
    """

    path: tuple[str, ...]
    axes: tuple[int | tuple[int, int, int], ...]


def actor_parts(obs_dim: int, action_dim: int, width: int) -> dict[str, Part]:
    """The blocks of a policy's parameters."""
    first, second, last = (("MLP_0", "Dense_0"), ("MLP_0", "Dense_1"), ("Dense_0",))
    every, mean, log_std = (0, width, width), (0, action_dim, WIDTH), (action_dim, action_dim, WIDTH)
    return {
        "obs": Part((*first, "kernel"), ((0, obs_dim, WIDTH), every)),
        "bias_0": Part((*first, "bias"), (every,)),
        "hidden": Part((*second, "kernel"), (every, every)),
        "bias_1": Part((*second, "bias"), (every,)),
        "mean": Part((*last, "kernel"), (every, mean)),
        "mean_bias": Part((*last, "bias"), (mean,)),
        "log_std": Part((*last, "kernel"), (every, log_std)),
        "log_std_bias": Part((*last, "bias"), (log_std,)),
    }


def critic_parts(i: int, obs_dim: int, action_dim: int, width: int) -> dict[str, Part]:
    """The blocks of the i-th critic's parameters."""
    first, second, last = (("MLP_0", "Dense_0"), ("MLP_0", "Dense_1"), ("Dense_0",))
    every = (0, width, width)
    return {
        "obs": Part((*first, "kernel"), (i, (0, obs_dim, WIDTH), every)),
        "action": Part((*first, "kernel"), (i, (obs_dim, action_dim, WIDTH), every)),
        "bias_0": Part((*first, "bias"), (i, every)),
        "hidden": Part((*second, "kernel"), (i, every, every)),
        "bias_1": Part((*second, "bias"), (i, every)),
        "q": Part((*last, "kernel"), (i, every, 0)),
        "q_bias": Part((*last, "bias"), (i, (0, 1, 1))),
    }


def block_of(ref: Any, axes: tuple[int | tuple[int, int, int], ...]) -> tuple[Any, jax.Array | None]:
    """A block of an array in memory, and where it is no padding; None: it has none."""
    spans = [axis for axis in axes if not isinstance(axis, int)]
    padded = tuple(span[2] for span in spans)
    places = iter(jax.lax.broadcasted_iota(jnp.int32, padded, n) for n in range(len(spans)))
    index, mask = [], None
    for axis in axes:
        if isinstance(axis, int):
            index.append(axis)
            continue
        place = next(places)
        index.append(axis[0] + place)
        if axis[1] != axis[2]:
            mask = place < axis[1] if mask is None else mask & (place < axis[1])
    return ref.at[tuple(index)], mask


def load(ref: Any, axes: tuple[int | tuple[int, int, int], ...]) -> jax.Array:
    """A block of an array, padded with zeros."""
    block, mask = block_of(ref, axes)
    return triton.load(block, mask=mask, other=None if mask is None else 0.0)


def store(ref: Any, axes: tuple[int | tuple[int, int, int], ...], x: jax.Array) -> None:
    """Writes a block without its padding."""
    block, mask = block_of(ref, axes)
    triton.store(block, x, mask=mask)


def leaf(tree: Any, part: Part) -> Any:
    """The array that a part is of."""
    tree = tree["params"]
    for name in part.path:
        tree = tree[name]
    return tree


def load_parts(tree: Any, parts: dict[str, Part]) -> dict[str, jax.Array]:
    """All blocks of a network's parameters."""
    return {name: load(leaf(tree, part), part.axes) for name, part in parts.items()}


def plus_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    return x + jnp.broadcast_to(bias[None], x.shape)


def relu(x: jax.Array) -> jax.Array:
    return jnp.where(x > 0, x, 0.0)


def sample_action(
    params: dict[str, jax.Array], obs: jax.Array, noise: jax.Array, is_action: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """`TanhNormal.sample` of the policy; obs and noise [B, 16] -> a [B, 16] and log π(a|s) [B]."""
    hidden = relu(plus_bias(obs @ params["obs"], params["bias_0"]))
    hidden = relu(plus_bias(hidden @ params["hidden"], params["bias_1"]))
    mean = plus_bias(hidden @ params["mean"], params["mean_bias"])
    log_std = plus_bias(hidden @ params["log_std"], params["log_std_bias"])
    low, high = LOG_STD_BOUNDS
    log_std = jnp.where(log_std < low, low, jnp.where(log_std > high, high, log_std))
    pre_tanh = mean + jnp.exp(log_std) * noise
    decay = jnp.exp(-2 * jnp.abs(pre_tanh))
    softplus = jnp.where(pre_tanh < 0, -2 * pre_tanh, 0.0) + jnp.log(1 + decay)  # of −2u
    log_prob = -0.5 * noise * noise - log_std - 0.5 * math.log(2 * math.pi) - 2 * (math.log(2) - pre_tanh - softplus)
    size = (1 - decay) / (1 + decay)
    action = jnp.where(is_action, jnp.where(pre_tanh < 0, -size, size), 0.0)
    return action, jnp.sum(jnp.where(is_action, log_prob, 0.0), axis=1)


def q_value(params: dict[str, jax.Array], obs: jax.Array, action: jax.Array) -> jax.Array:
    """One critic; obs and action [B, 16] -> [B]."""
    hidden = relu(plus_bias(obs @ params["obs"] + action @ params["action"], params["bias_0"]))
    hidden = relu(plus_bias(hidden @ params["hidden"], params["bias_1"]))
    return jnp.sum(hidden * jnp.broadcast_to(params["q"][None], hidden.shape), axis=1) + params["q_bias"]


def least(first: jax.Array, second: jax.Array) -> jax.Array:
    return jnp.where((second < first) | (second != second), second, first)  # NaN is the least


def adam_step(
    part: Part, grad: jax.Array, old: tuple[Any, Any, Any], new: tuple[Any, Any, Any], settings: Any
) -> jax.Array:
    """Adam on one block of parameters: reads parameters and moments, writes the new ones; returns the parameters."""
    params, mu, nu = (load(leaf(tree, part), part.axes) for tree in old)
    mu = BETA_1 * mu + (1 - BETA_1) * grad
    nu = BETA_2 * nu + (1 - BETA_2) * grad * grad
    step = (mu / settings.correction_1) / (jnp.sqrt(nu / settings.correction_2) + EPSILON)
    params = params - settings.learning_rate * step
    for tree, x in zip(new, (params, mu, nu), strict=True):
        store(leaf(tree, part), part.axes, x)
    return params


class Settings(NamedTuple):
    """Numbers of one update, each [1]; the corrections are Adam's, 1 − βᵗ."""

    learning_rate: Any
    polyak: Any
    target_entropy: Any
    correction_1: Any
    correction_2: Any


class Inputs(NamedTuple):
    """One batch, [B, ...]; `discount` is 0 after a terminal, the noise is the policy's at the next and this state."""

    obs: Any
    action: Any
    reward: Any
    discount: Any
    next_obs: Any
    next_noise: Any
    noise: Any


class Learned(NamedTuple):
    """What an update reads and writes; trees of arrays, moments by the names of the networks."""

    actor: Any
    critic: Any
    target: Any
    mu: dict[str, Any]
    nu: dict[str, Any]
    temperature: tuple[Any, Any, Any]


def update_member(inputs: Inputs, settings: Any, old: Learned, new: Learned, metrics: Any, *, interpret: bool) -> None:
    """The kernel: one update of one member; its arguments are arrays in memory, `old` and `new` the same ones."""
    settings = Settings(*(x[...] for x in settings))
    batch_size, obs_dim = inputs.obs.shape
    action_dim, width = inputs.action.shape[1], leaf(old.actor, Part(("MLP_0", "Dense_1", "bias"), ())).shape[0]
    rows = (0, batch_size, batch_size)
    actor = actor_parts(obs_dim, action_dim, width)
    critics = [critic_parts(i, obs_dim, action_dim, width) for i in range(2)]
    is_action = jax.lax.broadcasted_iota(jnp.int32, (batch_size, WIDTH), 1) < action_dim

    def rows_of(ref: Any, size: int) -> jax.Array:
        return load(ref, (rows, (0, size, WIDTH)))

    log_temperature = old.temperature[0][...]
    temperature = jnp.exp(log_temperature)
    next_obs, next_noise = rows_of(inputs.next_obs, obs_dim), rows_of(inputs.next_noise, action_dim)
    next_action, next_log_prob = sample_action(load_parts(old.actor, actor), next_obs, next_noise, is_action)
    value = least(*(q_value(load_parts(old.target, parts), next_obs, next_action) for parts in critics))
    value = value - temperature * next_log_prob
    targets = inputs.reward[...] + inputs.discount[...] * value

    obs, action = rows_of(inputs.obs, obs_dim), rows_of(inputs.action, action_dim)
    loss, q_mean = jnp.zeros((1,)), jnp.zeros((1,))
    for parts in critics:

        def critic_loss(params: dict[str, jax.Array]) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
            q = q_value(params, obs, action)
            squares = 0.5 * jnp.sum((q - targets) * (q - targets)) / batch_size
            return squares, (squares, jnp.sum(q) / batch_size)

        grads, (squares, mean) = jax.grad(critic_loss, has_aux=True)(load_parts(old.critic, parts))
        loss, q_mean = loss + squares, q_mean + 0.5 * mean
        for name, part in parts.items():
            states = ((tree.critic, tree.mu["critic"], tree.nu["critic"]) for tree in (old, new))
            params = adam_step(part, grads[name], *states, settings)  # type: ignore[arg-type]
            slow = load(leaf(old.target, part), part.axes)
            store(leaf(new.target, part), part.axes, slow + (1 - settings.polyak) * (params - slow))

    noise = rows_of(inputs.noise, action_dim)
    if not interpret:
        triton.debug_barrier()  # the critics were stored by other threads than those that load them
    learned = [load_parts(new.critic, parts) for parts in critics]  # here: what is differentiated cannot read memory

    def actor_loss(params: dict[str, jax.Array]) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        drawn, log_prob = sample_action(params, obs, noise, is_action)
        q = least(*(q_value(params, obs, drawn) for params in learned))
        loss = jnp.sum(temperature * log_prob - q) / batch_size
        return loss, (loss, jnp.sum(log_prob) / batch_size)

    grads, (policy_loss, log_prob) = jax.grad(actor_loss, has_aux=True)(load_parts(old.actor, actor))
    for name, part in actor.items():
        states = ((tree.actor, tree.mu["actor"], tree.nu["actor"]) for tree in (old, new))
        adam_step(part, grads[name], *states, settings)  # type: ignore[arg-type]

    grad = -(log_prob + settings.target_entropy) * temperature
    mu = BETA_1 * old.temperature[1][...] + (1 - BETA_1) * grad
    nu = BETA_2 * old.temperature[2][...] + (1 - BETA_2) * grad * grad
    step = (mu / settings.correction_1) / (jnp.sqrt(nu / settings.correction_2) + EPSILON)
    log_temperature = log_temperature - settings.learning_rate * step
    for ref, x in zip(new.temperature, (log_temperature, mu, nu), strict=True):
        ref[...] = x
    ones = jnp.ones((1,))
    for i, x in enumerate((loss, q_mean, policy_loss * ones, -log_prob * ones, jnp.exp(log_temperature))):
        store(metrics, ((i, 1, 1),), x)


def fused_update(
    key: jax.Array,
    state: sac.State,
    batch: Transition,
    *,
    config: sac.Config,
    target_entropy: Any,
    interpret: bool,
    num_warps: int = NUM_WARPS,
) -> tuple[sac.State, Metrics]:
    """The update of `jaxsoft.agents.sac`, of single transitions, as one kernel; same draws, equal to rounding."""
    target_key, actor_key = jax.random.split(key)
    opts: dict[str, Any] = dict(state.opt_states)
    moments = {name: opt[0] for name, opt in opts.items()}
    num_updates = moments["actor"].count + 1
    one: Any = partial(jnp.reshape, shape=(1,))
    numbers = config.learning_rate, config.polyak, target_entropy
    settings = Settings(
        *(one(jnp.asarray(x, jnp.float32)) for x in (*numbers, 1 - BETA_1**num_updates, 1 - BETA_2**num_updates))
    )
    noise = [jax.random.normal(one_key, batch.action.shape) for one_key in (target_key, actor_key)]
    inputs = Inputs(
        batch.obs, batch.action, batch.reward, config.discount * (1.0 - batch.terminated), batch.next_obs, *noise
    )
    mu, nu = ({name: getattr(moments[name], which) for name in ("actor", "critic")} for which in ("mu", "nu"))
    temperature: Any = (state.log_temperature, moments["temperature"].mu, moments["temperature"].nu)
    temperature = tuple(map(one, temperature))
    old = Learned(state.actor_params, state.critic_params, state.target_critic_params, mu, nu, temperature)
    read, read_tree = jax.tree.flatten((inputs, settings))
    kept, kept_tree = jax.tree.flatten(old)

    def kernel(*refs: Any) -> None:
        inputs, settings = jax.tree.unflatten(read_tree, refs[: len(read)])
        old = jax.tree.unflatten(kept_tree, refs[len(read) :][: len(kept)])
        new = jax.tree.unflatten(kept_tree, refs[len(read) + len(kept) : -1])
        update_member(inputs, settings, old, new, refs[-1], interpret=interpret)

    *kept, metrics = pl.pallas_call(
        kernel,
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (*kept, jnp.zeros(len(sac.METRICS)))],
        input_output_aliases={len(read) + i: i for i in range(len(kept))},
        compiler_params=triton.CompilerParams(num_warps=num_warps, num_stages=1),
        interpret=interpret,
    )(*read, *kept)
    new = jax.tree.unflatten(kept_tree, kept)
    log_temperature, *temperature_moments = (x.reshape(()) for x in new.temperature)
    mu = new.mu | {"temperature": temperature_moments[0]}
    nu = new.nu | {"temperature": temperature_moments[1]}
    opt_states = {
        name: (opt[0]._replace(count=num_updates, mu=mu[name], nu=nu[name]), *opt[1:]) for name, opt in opts.items()
    }
    state = replace(
        state,
        actor_params=new.actor,
        critic_params=new.critic,
        target_critic_params=new.target,
        log_temperature=log_temperature,
        opt_states=opt_states,
    )
    return state, dict(zip(sac.METRICS, metrics, strict=True))
