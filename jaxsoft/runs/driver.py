"""Trains a run directory to its end, one chunk of members after the other, and saves checkpoints on the way.

Whenever the process ends, the run goes on from its newest checkpoints and ends with the same numbers. A checkpoint
holds the reports that were made before it; nothing else is read.
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
from jaxsoft.runs.config import RunConfig, describe, extend, read_config, same_training
from jaxsoft.runs.directory import CHECKPOINTS, REFERENCE, SavedChunk, checkpoint_folder, new_run, open_chunk
from jaxsoft.runs.files import lock
from jaxsoft.runs.plan import Plan, plan_run
from jaxsoft.runs.policies import resolve_reference
from jaxsoft.runs.results import write_config
from jaxsoft.training.config import TrainConfig
from jaxsoft.training.schedule import num_prefill_steps, turns_at
from jaxsoft.training.state import TrainState
from jaxsoft.trees import bytes_of
from jaxsoft.types import Env

if TYPE_CHECKING:
    import pyarrow as pa


class Progress(NamedTuple):
    """The state of a run between two slices of training.

    Attributes:
        plan: of the run.
        chunk: the members in training.
        timestep: environment steps that each of them has taken; −1 before the first chunk.
        rows: the report of this slice, or None.
        is_restored: whether `rows` is the last report before a checkpoint that was read, instead of a new one.
    """

    plan: Plan
    chunk: Chunk
    timestep: int
    rows: pa.Table | None
    is_restored: bool = False


class Interrupted(Exception):  # noqa: N818 (nothing went wrong)
    """The training was asked to stop, and has saved a checkpoint at `timestep` of the chunk then in training."""

    def __init__(self, timestep: int) -> None:
        super().__init__(f"stopped at timestep {timestep}")
        self.timestep = timestep


def train(
    path: Path,
    config: RunConfig,
    *,
    env: Env | None = None,
    hosts: Hosts = ALONE,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Progress]:
    """Makes a run directory and trains it while the caller iterates; of several processes, each trains its share.

    Args:
        path: a new folder, or an empty one.
        config: settings of the run.
        env: the environment that `config.env_id` names; made from it by default.
        hosts: this process among those that train the run.
        should_stop: called after every slice; true stops the training.

    Yields:
        The run's progress: once when it is planned, then after every slice of about half a second.

    Raises:
        InputError: a setting is not allowed, `path` is not empty or cannot be written, or the device has not enough
            memory. Before the first checkpoint nothing is then left in `path`.
        Interrupted: after `should_stop` was true.
    """
    env = make_env(config.env_id) if env is None else env
    plan = plan_run(config, env, resolve_reference(config.train, env), hosts)
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
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Progress]:
    """Goes on with a run from its newest checkpoints, or extends it once all of them are found to fit.

    Args:
        path: a run directory.
        total_timesteps: extend the run to this timestep.
        from_timestep: forget the checkpoints after this timestep; 0: begin anew.
        env: see `train`.
        hosts: see `train`.
        should_stop: see `train`.

    Yields:
        As `train`, and once for every chunk that has a checkpoint.

    Raises:
        InputError: `path` is no run directory, cannot go on, or another process trains it; see also `train`.
        Interrupted: after `should_stop` was true.
    """
    config = read_config(path) if total_timesteps is None else extend(path, total_timesteps)
    env = env_of_run(config.env_id) if env is None else env
    with ExitStack() as stack:
        plan = plan_run(config, env, resolve_reference(config.train, env, path / REFERENCE), hosts)
        if hosts.index == 0:
            stack.enter_context(lock(path, CHECKPOINTS))
        if total_timesteps is not None:
            require_fitting(path, config, plan.programs())
            write_config(path, describe(config))
        yield from _train_plan(path, plan, from_timestep, should_stop)


def _train_plan(
    path: Path, plan: Plan, from_timestep: int | None, should_stop: Callable[[], bool]
) -> Iterator[Progress]:
    """Trains this process's share and waits for the others; then the first process writes one table.

    It writes it from the last checkpoints of all chunks, whichever processes trained them.
    """
    require_agreement(plan.hosts, json.dumps(describe(plan.config)))
    yield Progress(plan, plan.config.chunks[0], -1, None)
    yield from train_run(path, plan, plan.programs(), from_timestep=from_timestep, should_stop=should_stop)
    wait_for_all(plan.hosts, "trained")
    if plan.hosts.index == 0:
        saved = (open_chunk(path, plan.config, chunk) for chunk in plan.config.chunks)
        tables.write_metrics(path, [one.reports for one in saved if one and one.reports.num_rows])


def train_run(
    path: Path,
    plan: Plan,
    programs: Sequence[Program],
    *,
    from_timestep: int | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Progress]:
    """Trains this process's chunks from their newest checkpoints; the first process keeps `metrics.parquet` up to date.

    The programs are the plan's, and may have been compiled before; for the other arguments see `resume`.
    """
    done: list[pa.Table] = []
    for i, chunk in enumerate(plan.chunks):
        job = _Job(path, plan, programs[chunk.program], chunk, reports=[])
        with lock(path, CHECKPOINTS, chunk.name) as require_place, explain_memory(len(chunk.seeds)):
            for progress in _train_chunk(job, require_place, from_timestep, should_stop):
                if progress.rows is not None and plan.hosts.index == 0:
                    require_place()
                    tables.write_metrics(path, [*done, *job.reports])
                yield progress
        done += job.reports
        following = {later.program for later in plan.chunks[i + 1 :]}
        if following and chunk.program not in following:
            forget_compiled(job.program)


@contextmanager
def explain_memory(num_seeds: int) -> Iterator[None]:
    """Tells what to do when the device runs out of memory."""
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
    """The training of one chunk; `reports` are those made so far."""

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
    folder, saved = checkpoint_folder(job.path, chunk), open_chunk(job.path, config, chunk, at_most=from_timestep)
    if from_timestep and saved is None:
        there = ", ".join(map(str, checkpoint.timesteps(folder))) or "none"
        raise InputError(f"from_timestep is {from_timestep}; {folder} has no checkpoint so early (there are: {there})")
    with closing(checkpoint.Writer(folder, same_training(config), config.keep_checkpoints)) as writer:
        if from_timestep is not None:
            writer.forget_after(from_timestep)
        timestep, first_turn = 0, 0
        if saved is not None:
            timestep, first_turn = saved.checkpoint.timestep, saved.checkpoint.turn
            job.reports.extend([saved.reports] if saved.reports.num_rows else [])
            yield Progress(job.plan, chunk, timestep, tables.last_report(saved.reports) if job.reports else None, True)
        if first_turn == last_turn:
            return
        arguments, cells = config.arguments(chunk.cells), tables.cell_columns(config, chunk.cells)
        if saved is None:
            start = init_members(program, chunk.seeds, arguments)
        else:
            start = place_state(_read_state(config, chunk, program, saved), program)
        since, has_compiled = (time.perf_counter(), timestep), False
        slices = run(program, start, arguments, turn=first_turn, pauses=saves, should_stop=should_stop)
        del start
        turn = first_turn
        for state, turn, timestep, metrics, ended, is_last in slices:
            rows, now = None, (ended, timestep)
            if metrics is not None:
                speed = len(chunk.seeds) * (now[1] - since[1]) / max(now[0] - since[0], 1e-9)
                rows = tables.metrics_rows(chunk.seeds, metrics, speed, cells)
                job.reports.append(rows)
            if metrics is not None or not has_compiled:
                since, has_compiled = now, True  # only the first report's speed may include compilation
            require_place()  # nothing is written to another run's folder, and no time lost where the own one is gone
            num_later = int(np.sum(saves > turn)) + 1
            # one that later ones will replace is left out where training would have to wait for the one before it
            if state is not None and (is_last or num_later < config.keep_checkpoints or not writer.is_busy):
                at_once = state.replay_state is not None and not is_last
                writer.save(
                    timestep,
                    turn,
                    checkpoint.copy_to_host(state, program.axes, len(chunk.seeds), at_once=at_once),
                    parquet.encode(tables.concat_reports(job.reports)),
                    has_training=turn < last_turn or config.checkpoint_every > 0,
                )
            del state  # its memory is wanted
            yield Progress(job.plan, chunk, timestep, rows)
        writer.wait()
        if turn < last_turn:
            raise Interrupted(timestep)


def _read_state(
    config: RunConfig, chunk: Chunk, program: Program, saved: SavedChunk, *, only_check: bool = False
) -> TrainState:
    """A chunk's training state from its checkpoint, NumPy; with `only_check` only shapes and dtypes, once they fit."""
    _, example = jax.eval_shape(program.begin, seed_keys(jnp.asarray(chunk.seeds)), config.arguments(chunk.cells))
    require_host_memory(bytes_of(example), saved.checkpoint.path)
    num_rows = 0
    if example.replay_state is not None:
        num_steps = num_prefill_steps(program.loop.config) + saved.checkpoint.turn
        num_rows = min(num_steps, jax.tree.leaves(example.replay_state.data)[0].shape[1])
    return checkpoint.read_state(saved.checkpoint, example, num_rows, only_check=only_check)


def require_fitting(path: Path, config: RunConfig, programs: Sequence[Program]) -> None:
    """Makes sure that whatever a run has saved fits other settings than it had, of which the programs are made.

    Raises:
        InputError: a checkpoint is broken, of another version, of other settings, or of a timestep after the end.
    """
    for chunk in config.chunks:
        saved = open_chunk(path, config, chunk)
        if saved is not None:
            _read_state(config, chunk, programs[chunk.program], saved, only_check=True)


def _checkpoint_turns(config: RunConfig, train: TrainConfig) -> np.ndarray:
    """Turns after which a checkpoint is due, but for the last."""
    if not config.checkpoint_every:
        return np.zeros(0, np.int32)
    timesteps = np.arange(config.checkpoint_every, train.total_timesteps, config.checkpoint_every)
    turns = turns_at(timesteps, train)
    return np.unique(turns[turns > 0])
