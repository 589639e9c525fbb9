"""The plan of a run, made once before anything is compiled: programs, memory, chunks, devices."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxsoft.envs.check import check_env
from jaxsoft.errors import InputError
from jaxsoft.fleet.devices import fewest_devices
from jaxsoft.fleet.grid import Cell, Chunk, cell_in_words
from jaxsoft.fleet.hosts import ALONE, Hosts
from jaxsoft.fleet.memory import Need, capacity_of, need_of, seeds_per_block, seeds_per_chunk
from jaxsoft.fleet.programs import Program, make_program
from jaxsoft.runs.config import RunConfig
from jaxsoft.training.config import TrainConfig
from jaxsoft.training.loop import make_loop
from jaxsoft.training.schedule import report_timesteps
from jaxsoft.types import Env


class Plan(NamedTuple):
    """A run, planned.

    Attributes:
        config: its settings, the size of the chunks decided.
        env: the environment.
        settings: of each program's first cell, a reference policy loaded; the others differ in arguments only.
        needs: bytes of a member of each program.
        devices: those that share the members of a chunk.
        hosts: this process among those that share the chunks.
    """

    config: RunConfig
    env: Env
    settings: list[TrainConfig]
    needs: list[Need]
    devices: Sequence[Any]
    hosts: Hosts

    @property
    def chunks(self) -> list[Chunk]:
        """This process's share."""
        return self.config.chunks[self.hosts.index :: self.hosts.count]

    @property
    def largest_chunk(self) -> int:
        """Members of the largest chunk of all processes."""
        return max(len(chunk.seeds) for chunk in self.config.chunks)

    def programs(self) -> list[Program]:
        """The programs, none of them compiled yet."""
        block = (seeds_per_block(need, self.devices[0]) for need in self.needs)
        return [make_program(self.env, x, self.devices, size) for x, size in zip(self.settings, block, strict=True)]


def plan_run(config: RunConfig, env: Env, train: TrainConfig, hosts: Hosts = ALONE) -> Plan:
    """Plans a run once all of its settings are found right.

    Args:
        config: of the run. Where it leaves the size of the chunks open, they are as large as the devices allow.
        env: its environment.
        train: its settings of training, a reference policy loaded: see `policies.resolve_reference`.
        hosts: this process among those that train it.

    Raises:
        InputError: the environment is not what it must be, the settings of a cell do not fit each other or the
            environment, its reports fall on other timesteps than another's, or not one member fits the devices.
    """
    check_env(env)
    loops = [make_loop(env, train, cell) for cell in config.cells]  # each refuses what does not fit
    firsts = [int(cells[0]) for cells in config.layout.programs]
    settings = [loops[i].config for i in firsts]
    _require_same_reports([config.cells[i] for i in firsts], settings)
    needs, devices = [need_of(loops[i]) for i in firsts], jax.local_devices()
    if not config.checkpoint_every:  # then no state is copied while another is trained
        needs = [need._replace(checkpoint=0) for need in needs]
    if not config.seeds_per_chunk:
        capacity = capacity_of(devices)
        sizes = [seeds_per_chunk(need, n, capacity) for n, need in zip(fair_shares(config, hosts), needs, strict=True)]
        config = dataclasses.replace(config, seeds_per_chunk=min(sizes))
    plan = Plan(config, env, settings, needs, devices, hosts)
    return plan._replace(devices=fewest_devices(plan.largest_chunk, devices))


def fair_shares(config: RunConfig, hosts: Hosts) -> list[int]:
    """How many members of each program a chunk may have, so that every process gets about as much of all of them."""
    totals = [config.num_seeds * len(cells) for cells in config.layout.programs]
    share = -(-sum(totals) // hosts.count)
    return [-(-total // -(-total // share)) for total in totals]


def _require_same_reports(cells: list[Cell], settings: list[TrainConfig]) -> None:
    """Makes sure that all programs, of which these are the first cells, report at the same timesteps: cells compare."""
    timesteps = [report_timesteps(x) for x in settings]
    for cell, others in zip(cells, timesteps, strict=True):
        if not np.array_equal(others, timesteps[0]):
            first, other = (
                f"{cell_in_words(one)}: {x[0]:,}, …, {x[-1]:,}" for one, x in ((cells[0], timesteps[0]), (cell, others))
            )
            raise InputError(
                f"sweep has cells whose reports fall on other timesteps: {first}; {other} (total_timesteps and "
                "eval_every must be multiples of the steps of a turn, and more than the random steps, in all of them)"
            )
