"""Several processes that train one run, on one machine or many, by JAX's multi-controller runtime.

Process i trains the chunks i, i + n, i + 2n, … on its own devices and writes their checkpoints, so any number n of
processes can go on with a run. They do not communicate while they train.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import jax
import numpy as np

from jaxsoft.errors import InputError

LONGEST_WAIT = 30 * 24 * 3600 * 1000
"""Milliseconds that a process which is ready waits for the others."""


@dataclass(frozen=True)
class HostOptions:
    """How the processes of one run find each other."""

    distributed: bool = False
    """Train with several processes; SLURM, Kubernetes and TPU pods say how many and where, other places do not."""
    coordinator: str | None = None
    """Address and port of process 0, where nothing says so: 10.0.0.1:1234."""
    num_processes: int | None = None
    """How many processes there are."""
    process_id: int | None = None
    """Which of them this one is, from 0."""
    heartbeat_timeout: int = 100
    """Seconds after which a process that is silent is taken for dead, and the others stop."""


@dataclass(frozen=True)
class Hosts:
    """This process among those that train a run; the one of index 0 makes the run directory and writes the table."""

    index: int = 0
    count: int = 1


NOT_DISTRIBUTED, ALONE = HostOptions(), Hosts()


def join(options: HostOptions) -> Hosts:
    """Joins the other processes; before any device is used. Without `distributed` there are none.

    Raises:
        InputError: nothing says who the others are, or they do not come.
    """
    if not options.distributed:
        return ALONE
    try:
        jax.distributed.initialize(
            options.coordinator,
            options.num_processes,
            options.process_id,
            heartbeat_timeout_seconds=options.heartbeat_timeout,
        )
    except (ValueError, TypeError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise InputError(
            f"--distributed cannot find the other processes ({reason}); give --coordinator, --num-processes and "
            "--process-id, or start it under SLURM, Kubernetes or on a TPU pod"
        ) from None
    return Hosts(jax.process_index(), jax.process_count())


def wait_for_all(hosts: Hosts, name: str) -> None:
    """Waits for all processes at a barrier, whose `name` is used once."""
    if hosts.count > 1:
        from jax._src.distributed import global_state  # what JAX's own barriers are made of; they time out too soon

        assert global_state.client is not None
        global_state.client.wait_at_barrier(f"jaxsoft_{name}", LONGEST_WAIT)


def require_agreement(hosts: Hosts, settings: str) -> None:
    """Raises an `InputError` unless all processes have read the same settings."""
    if hosts.count > 1:
        from jax.experimental.multihost_utils import process_allgather

        digest = np.frombuffer(hashlib.sha256(settings.encode()).digest(), np.uint8)
        if (np.asarray(process_allgather(digest)) != digest).any():
            raise InputError("the processes of this run do not read the same config.json: is the folder shared?")
