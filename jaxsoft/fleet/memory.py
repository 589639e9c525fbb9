"""Device memory: what a seed needs, estimated before compilation, and how many seeds fit at once."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxsoft.errors import InputError
from jaxsoft.random import make_key
from jaxsoft.training.loop import begin
from jaxsoft.training.state import Loop
from jaxsoft.trees import bytes_of
from jaxsoft.types import ReplayBatches

USABLE = 0.8
"""Share of a device's memory that seeds may fill; the rest is for the program and the allocator."""

CACHE = 8 << 20
"""Bytes of cache that the block of a CPU core may fill."""


class Need(NamedTuple):
    """Bytes for each seed.

    Attributes:
        replay: of past transitions.
        agent: parameters, moments, statistics; twice, since the last good ones are kept.
        environments: those of training and of evaluation.
        update: estimate for an update: batch, gradients and activations, of a minibatch with its gradients or of a
            whole rollout without, whichever is more.
        checkpoint: three copies of the state: of a checkpoint being written, of the next, and of one being made; none
            of a state with a replay, for which the device waits.
    """

    replay: int
    agent: int
    environments: int
    update: int
    checkpoint: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self)

    def __str__(self) -> str:
        parts = (f"{bytes_in_words(size)} {name}" for name, size in self._asdict().items() if size)
        return f"{bytes_in_words(self.total)} ({', '.join(parts)})"


def need_of(loop: Loop) -> Need:
    """Bytes of one seed, from the shapes of its training state; allocates nothing."""
    _, state = jax.eval_shape(partial(begin, loop=loop), jax.eval_shape(lambda: make_key(0)))
    environments, learned = bytes_of((state.env_state, state.obs)), bytes_of(state.agent_state)
    config, experience = loop.config, loop.config.experience
    if isinstance(experience, ReplayBatches):
        num_fresh, num_samples = 0, experience.batch_size * max(experience.sequence_length, 1)
    else:
        num_fresh = experience.length * config.num_envs
        num_samples = num_fresh // experience.num_minibatches
    row = bytes_of(state.obs) // config.num_envs
    # moments count a layer about three times, which is what its gradient takes; forward it takes a third of that
    activations = num_activations(state.agent_state, state.obs.shape[1:])
    evaluated = config.eval_episodes if config.eval_every else 0
    return Need(
        replay=bytes_of(state.replay_state),
        agent=2 * learned,
        environments=environments * (config.num_envs + evaluated) // config.num_envs,
        update=learned + max(num_samples * (4 * row + 4 * activations), num_fresh * (4 * row + 4 * activations // 3)),
        checkpoint=0 if state.replay_state is not None else 3 * (2 * learned + environments),
    )


def num_activations(agent_state: Any, obs_shape: Sequence[int]) -> int:
    """Activations for one observation, of all networks and as many again for their moments."""

    def leaf_bytes(x: Any) -> int:
        if x.ndim < 2:
            return 0
        if x.ndim < 4:
            return math.prod(x.shape[:-2]) * x.shape[-1]
        *members, height, width, channels, features = x.shape  # features and their neighbourhoods, see `Conv3x3`
        positions = (obs_shape[0] - height + 1) * (obs_shape[1] - width + 1)
        return math.prod(members) * positions * (features + height * width * channels)

    return sum(map(leaf_bytes, jax.tree.leaves(agent_state)))


class Capacity(NamedTuple):
    """Memory of a set of devices.

    Attributes:
        size: bytes of the smallest device; of all together, where they share one memory.
        num_devices: how many devices.
        is_shared: whether they share one memory, as the cores of a CPU do.
    """

    size: int
    num_devices: int = 1
    is_shared: bool = False

    def num_seeds(self, need: Need) -> int:
        """How many seeds fit, equally many on each device where there are enough of them."""
        fitting = int(USABLE * self.size) // need.total
        if not self.is_shared:
            return fitting * self.num_devices
        return fitting - fitting % self.num_devices if fitting > self.num_devices else fitting


def capacity_of(devices: Sequence[Any]) -> Capacity:
    """The devices' own memory; where they have none, as on CPU, the host's."""
    smallest = min((device.memory_stats() or {}).get("bytes_limit", 0) for device in devices)
    return Capacity(smallest or host_memory(), len(devices), is_shared=not smallest)


def seeds_per_chunk(need: Need, num_seeds: int, capacity: Capacity) -> int:
    """Seeds per chunk such that each chunk fits the devices that share it, and all are about equally large.

    Raises:
        InputError: not even one fits.
    """
    fitting = capacity.num_seeds(need)
    if not fitting:
        raise InputError(
            f"a seed needs {need}, and the device has {bytes_in_words(capacity.size)}, of which {USABLE:.0%} are "
            "planned with; make replay_capacity, num_envs, batch_size or hidden_sizes smaller"
        )
    return -(-num_seeds // -(-num_seeds // fitting))


def seeds_per_block(need: Need, device: Any) -> int | None:
    """Seeds whose state fits a core's cache; None where blocks do not pay.

    They pay on CPUs only, for agents without a replay of which at least one fits.
    """
    in_use = need.total - need.checkpoint
    if device.platform != "cpu" or need.replay or in_use > CACHE:
        return None
    return CACHE // in_use


def host_memory() -> int:
    """Bytes of the machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def require_host_memory(size: int, path: Path) -> None:
    """Raises an `InputError` where arrays of `size` bytes are larger than the host's memory."""
    if size > host_memory():
        raise InputError(f"{path} would take {bytes_in_words(size)}; this machine has {bytes_in_words(host_memory())}")


def bytes_in_words(size: float) -> str:
    """A number of bytes for people.

    >>> bytes_in_words(2_345_678)
    '2.3 MB'
    """
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if size < 1000 or unit == "PB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError
