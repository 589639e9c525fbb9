"""Trains a run directory to its end, from wherever it stands: chunk by chunk of its members, saving as it goes.

Whatever ends the process, and whenever: the run goes on from its newest checkpoint and ends with the numbers that it
would have ended with. A checkpoint holds the reports that were made before it, and nothing is read from elsewhere.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsoft.envs import env_of_run, make_env
from jaxsoft.errors import InputError
from jaxsoft.fleet.grid import Chunk
from jaxsoft.fleet.hosts import ALONE, Hosts, require_agreement, wait_for_all
from jaxsoft.fleet.memory import require_host_memory
from jaxsoft.fleet.programs import Program, forget_compiled, init_members, place_state, run, seed_keys
from jaxsoft.runs import checkpoint, parquet, tables
from jaxsoft.runs.config import RunConfig, describe, extended, read_config, require_within_end, same_training
from jaxsoft.runs.directory import CHECKPOINTS, REFERENCE, change, checkpoint_folder, new_run
from jaxsoft.runs.files import locked
from jaxsoft.runs.plan import Plan, plan_run
from jaxsoft.runs.policies import with_reference
from jaxsoft.training.config import TrainConfig
from jaxsoft.training.schedule import num_prefill_steps, turns_at
from jaxsoft.training.state import TrainState
from jaxsoft.trees import bytes_of
from jaxsoft.types import Env

if TYPE_CHECKING:
    import pyarrow as pa


def never() -> bool:
    """Nobody asks the training to stop."""
    return False


class Progress(NamedTuple):
    """Where a run stands.

    Attributes:
        plan: of the run.
        chunk: what is being trained.
        timestep: environment steps taken by each of its members; −1 before anything was done.
        rows: of the report that was just made, or None.
    """

    plan: Plan
    chunk: Chunk
    timestep: int
    rows: pa.Table | None


class Interrupted(Exception):  # noqa: N818 (nothing went wrong)
    """The training was asked to stop, and has saved where it stands: `timestep` of the seeds then in training."""

    def __init__(self, timestep: int) -> None:
        super().__init__(f"stopped at timestep {timestep}")
        self.timestep = timestep


def train(
    path: Path,
    config: RunConfig,
    *,
    env: Env | None = None,
    hosts: Hosts = ALONE,
    should_stop: Callable[[], bool] = never,
) -> Iterator[Progress]:
    """Trains a new run directory as it is iterated over; with other processes, this one's share.

    Args:
        path: where nothing is yet.
        config: what is trained.
        env: that `config.env_id` names; by default it is made.
        hosts: this process among those that train the run.
        should_stop: asked after every slice.

    Yields:
        Where the run stands: once when it is planned, then after every slice of about half a second.

    Raises:
        InputError: something in `config` is not allowed, there is something in `path`, it cannot be written, or the
            device has not enough memory. Where that comes before the first checkpoint, nothing is left in `path`.
        Interrupted: `should_stop` said so.
    """
    env = make_env(config.env_id) if env is None else env
    plan = plan_run(config, env, with_reference(config.train, env.spec), hosts)
    with ExitStack() as stack:
        if hosts.index == 0:
            stack.enter_context(new_run(path, plan.config))
        wait_for_all(hosts, "created")
        yield from _train_plan(path, plan, None, should_stop)


def resume(
    path: Path,
    *,
    total_timesteps: int | None = None,
    from_timestep: int | None = None,
    env: Env | None = None,
    hosts: Hosts = ALONE,
    should_stop: Callable[[], bool] = never,
) -> Iterator[Progress]:
    """Trains what is not trained yet of a run, or extends it, once all that it has saved is found to fit.

    Args:
        path: a run directory.
        total_timesteps: train it to this timestep, more than it was to.
        from_timestep: forget the checkpoints after this timestep; 0: begin anew.
        env: as in `train`, as what follows.
        hosts: likewise.
        should_stop: likewise.

    Yields:
        As `train`, and once for a chunk that was trained before.

    Raises:
        InputError: `path` is no run directory, cannot go on, or another process trains it; else as `train`.
        Interrupted: `should_stop` said so.
    """
    config = read_config(path) if total_timesteps is None else extended(path, total_timesteps)
    env = env_of_run(config.env_id) if env is None else env
    with ExitStack() as stack:
        plan = plan_run(config, env, with_reference(config.train, env.spec, path / REFERENCE), hosts)
        if hosts.index == 0:
            stack.enter_context(locked(path, CHECKPOINTS))
        if total_timesteps is not None:
            require_fitting(path, config, plan.programs())
            change(path, config)
        yield from _train_plan(path, plan, from_timestep, should_stop)


def _train_plan(
    path: Path, plan: Plan, from_timestep: int | None, should_stop: Callable[[], bool]
) -> Iterator[Progress]:
    """Trains this process's share, waits for the others', and has the first process write the one table."""
    require_agreement(plan.hosts, json.dumps(describe(plan.config)))
    yield Progress(plan, plan.config.chunks[0], -1, None)
    yield from train_run(path, plan, plan.programs(), from_timestep=from_timestep, should_stop=should_stop)
    wait_for_all(plan.hosts, "trained")
    if plan.hosts.index == 0:
        collect(path, plan.config)


def train_run(
    path: Path,
    plan: Plan,
    programs: Sequence[Program],
    *,
    from_timestep: int | None = None,
    should_stop: Callable[[], bool] = never,
) -> Iterator[Progress]:
    """Trains what is not trained yet of this process's share; the first process writes `metrics.parquet` as it goes.

    Args:
        path: a run directory with its `config.json`.
        plan: of the run.
        programs: the plan's, which may have been compiled before.
        from_timestep: see `resume`.
        should_stop: likewise.
    """
    done: list[pa.Table] = []
    for i, chunk in enumerate(plan.chunks):
        job = _Job(path, plan, programs[chunk.program], chunk, reports=[])
        with locked(path, CHECKPOINTS, chunk.name) as require_place, enough_memory(len(chunk.seeds)):
            for progress in _train_chunk(job, require_place, from_timestep, should_stop):
                if progress.rows is not None and plan.hosts.index == 0:
                    require_place()
                    tables.write_metrics(path, [*done, *job.reports])
                yield progress
        done += job.reports
        following = {later.program for later in plan.chunks[i + 1 :]}
        if following and chunk.program not in following:
            forget_compiled(job.program)


def collect(path: Path, config: RunConfig) -> None:
    """Writes the one table of a run whose chunks are all trained, whoever trained them, from their last checkpoints.

    Raises:
        InputError: one of them is broken.
    """
    reports = []
    for chunk in config.chunks:
        found = checkpoint.newest(checkpoint_folder(path, chunk), same_training(config))
        reports += [tables.read(found.path / checkpoint.TABLE, config, chunk)] if found else []
    tables.write_metrics(path, [report for report in reports if report.num_rows])


@contextmanager
def enough_memory(num_seeds: int) -> Iterator[None]:
    """Tells what to do where the device runs out of memory."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise InputError(
            f"the device has not enough memory for {num_seeds} seeds in one program; begin a new run with a "
            f"smaller --seeds-per-chunk than {num_seeds} ({str(error).splitlines()[0][:120]})"
        ) from error


class _Job(NamedTuple):
    """What belongs to the training of one chunk; `reports` are those made so far."""

    path: Path
    plan: Plan
    program: Program
    chunk: Chunk
    reports: list[pa.Table]


def _train_chunk(
    job: _Job, require_place: Callable[[], None], from_timestep: int | None, should_stop: Callable[[], bool]
) -> Iterator[Progress]:
    config, chunk, program = job.plan.config, job.chunk, job.program
    last_turn, saves = int(program.segments.sum()), _checkpoint_turns(config, program.loop.config)
    folder, settings = checkpoint_folder(job.path, chunk), same_training(config)
    found = checkpoint.newest(folder, settings, at_most=from_timestep)
    if from_timestep and found is None:
        there = ", ".join(map(str, checkpoint.timesteps(folder))) or "none"
        raise InputError(f"from_timestep is {from_timestep}; {folder} has no checkpoint so early (there are: {there})")
    with closing(checkpoint.Writer(folder, settings, config.keep_checkpoints)) as writer:
        if from_timestep is not None:
            writer.forget_after(from_timestep)
        if found is not None:
            require_within_end(config, found.path, found.timestep)
            rows = tables.read(found.path / checkpoint.TABLE, config, chunk)
            job.reports.extend([rows] if rows.num_rows else [])
            yield Progress(job.plan, chunk, found.timestep, tables.last_report(rows) if rows.num_rows else None)
        turn = 0 if found is None else found.turn
        if turn == last_turn:
            return
        clock, of_cells = _Clock(), tables.cell_columns(config, chunk.cells)
        state, settings = _first_state(job, found), config.arguments(chunk.cells)
        for state, turn, metrics in run(program, state, settings, turn=turn, pauses=saves):  # noqa: B020
            timestep, rows = int(state.timestep), None
            if metrics is not None:
                speed = len(chunk.seeds) * clock.speed(timestep)
                rows = tables.metrics_rows(chunk.seeds, metrics, speed, of_cells)
                job.reports.append(rows)
            clock.tick(timestep)
            stop = turn < last_turn and should_stop()
            require_place()  # after every slice: neither is another run's folder written to, nor trained for nothing
            if stop or turn in saves or turn == last_turn:
                writer.save(
                    timestep,
                    turn,
                    checkpoint.to_host(state, program.axes, len(chunk.seeds)),
                    parquet.to_bytes(tables.concat_reports(job.reports)),
                    has_training=stop or config.checkpoint_every > 0,
                )
            if stop:
                writer.wait()
                raise Interrupted(timestep)
            yield Progress(job.plan, chunk, timestep, rows)
        writer.wait()


def _first_state(job: _Job, found: checkpoint.Checkpoint | None) -> TrainState:
    """The state to go on from, on the device."""
    config, chunk = job.plan.config, job.chunk
    if found is None:
        return init_members(job.program, chunk.seeds, config.arguments(chunk.cells))
    return place_state(checkpoint.read_state(found, *_example(config, chunk, job.program, found)), job.program)


def _example(config: RunConfig, chunk: Chunk, program: Program, found: checkpoint.Checkpoint) -> tuple[TrainState, int]:
    """Shapes and dtypes of a chunk's state, and how many rows of its replay hold data at a checkpoint."""
    keys, settings = seed_keys(jnp.asarray(chunk.seeds)), config.arguments(chunk.cells)
    _, example = jax.eval_shape(program.begin, keys, settings)
    require_host_memory(bytes_of(example), found.path)
    if example.replay_state is None:
        return example, 0
    num_steps = num_prefill_steps(program.loop.config) + found.turn
    return example, min(num_steps, jax.tree.leaves(example.replay_state.data)[0].shape[1])


def require_fitting(path: Path, config: RunConfig, programs: Sequence[Program]) -> None:
    """Makes sure that a run can go on with other settings than it had, from whatever it has saved.

    Args:
        path: of the run.
        config: what it is to be trained with.
        programs: its programs.

    Raises:
        InputError: a checkpoint is broken, of another version, of other settings, or of a timestep after the end.
    """
    for chunk in config.chunks:
        found = checkpoint.newest(checkpoint_folder(path, chunk), same_training(config))
        if found is not None:
            require_within_end(config, found.path, found.timestep)
            tables.read(found.path / checkpoint.TABLE, config, chunk)
            example = _example(config, chunk, programs[chunk.program], found)
            checkpoint.read_state(found, *example, only_check=True)


def _checkpoint_turns(config: RunConfig, train: TrainConfig) -> np.ndarray:
    """Turns after which a checkpoint is due, but for the last."""
    if not config.checkpoint_every:
        return np.zeros(0, np.int32)
    timesteps = np.arange(config.checkpoint_every, train.total_timesteps, config.checkpoint_every)
    turns = turns_at(timesteps, train)
    return np.unique(turns[turns > 0])


class _Clock:
    """Environment steps of one seed per second since the last report; at first since the first slice."""

    def __init__(self) -> None:
        self._since: tuple[float, int] | None = None
        self._began = time.perf_counter()

    def tick(self, timestep: int) -> None:
        """Notes that a slice has ended: where a run goes on, the first one compiled the program."""
        if self._since is None:
            self._since = time.perf_counter(), timestep

    def speed(self, timestep: int) -> float:
        """At a report."""
        now = time.perf_counter()
        began, first = self._since or (self._began, 0)
        self._since = now, timestep
        return (timestep - first) / max(now - began, 1e-9)
