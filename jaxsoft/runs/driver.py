"""Trains a run directory to its end, from wherever it stands: chunk by chunk of its members, saving as it goes.

Whatever ends the process, and whenever: the run goes on from its newest checkpoint and ends with the numbers that it
would have ended with. A checkpoint holds the reports that were made before it, and nothing is read from elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsoft.envs.check import check_env
from jaxsoft.errors import InputError
from jaxsoft.fleet.grid import Chunk, cell_in_words, programs_of
from jaxsoft.fleet.hosts import ALONE, Hosts
from jaxsoft.fleet.memory import bytes_of, require_host_memory
from jaxsoft.fleet.sweep import Sweep, forget_programs, place, run, seed_keys, start
from jaxsoft.runs import checkpoint, parquet, tables
from jaxsoft.runs.directory import CHECKPOINTS, RunConfig, checkpoint_folder, require_within_end, same_training
from jaxsoft.runs.files import locked
from jaxsoft.training.config import TrainConfig, experience_of, with_settings
from jaxsoft.training.loop import Trainer, TrainState, make_trainer, over_seeds
from jaxsoft.training.schedule import num_prefill_steps, report_timesteps, turns_at
from jaxsoft.types import Env

if TYPE_CHECKING:
    import pyarrow as pa


class Progress(NamedTuple):
    """Where a run stands.

    Attributes:
        chunk: what is being trained.
        timestep: environment steps taken by each of its members.
        rows: of the report that was just made, or None.
    """

    chunk: Chunk
    timestep: int
    rows: pa.Table | None


class Interrupted(Exception):  # noqa: N818 (nothing went wrong)
    """The training was asked to stop, and has saved where it stands: `timestep` of the seeds then in training."""

    def __init__(self, timestep: int) -> None:
        super().__init__(f"stopped at timestep {timestep}")
        self.timestep = timestep


def make_trainers(config: RunConfig, env: Env, train: TrainConfig) -> list[Trainer]:
    """The trainer of each of a run's programs, once the settings of all cells are found right.

    Args:
        config: of the run.
        env: its environment.
        train: its settings of training, a reference policy loaded: see `with_reference`.

    Raises:
        InputError: the environment is not what it must be, the settings of a cell do not fit each other or the
            environment, or its reports fall on other timesteps than another's.
    """
    check_env(env)
    cells = config.cells
    trainers = [make_trainer(config.agent_name, env, with_settings(train, cell)) for cell in cells]
    firsts = [int(numbers[0]) for numbers in programs_of(config.agent_name, config.sweep)]
    settings = [with_settings(train, cells[i]) for i in firsts]
    timesteps = [report_timesteps(x, experience_of(config.agent_name, x)) for x in settings]
    for i, others in zip(firsts, timesteps, strict=True):
        if not np.array_equal(others, timesteps[0]):
            raise InputError(
                f"sweep has cells whose reports fall on other timesteps: {cell_in_words(cells[0])}: "
                f"{_in_short(timesteps[0])}; {cell_in_words(cells[i])}: {_in_short(others)} (total_timesteps and "
                "eval_every must be multiples of the steps of a turn, and more than the random steps, in all of them)"
            )
    return [trainers[i] for i in firsts]


def _in_short(timesteps: np.ndarray) -> str:
    return f"{timesteps[0]:,}, …, {timesteps[-1]:,}"


def train_run(
    path: Path,
    config: RunConfig,
    sweeps: Sequence[Sweep],
    *,
    hosts: Hosts = ALONE,
    from_timestep: int | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Progress]:
    """Trains what is not trained yet of this process's share.

    Args:
        path: a run directory with its `config.json`.
        config: what that says.
        sweeps: of each of its programs.
        hosts: which of the processes this one is; the first writes `metrics.parquet` as it goes, with its own share.
        from_timestep: forget the checkpoints after this timestep; 0: begin anew.
        should_stop: asked after every slice.

    Yields:
        After every slice, and once for a chunk that was trained before.

    Raises:
        InputError: a checkpoint is broken or of other settings, cannot be written, the run directory was removed,
            another process trains here, or the device has not enough memory.
        Interrupted: `should_stop` said so.
    """
    done: list[pa.Table] = []
    chunks = config.chunks[hosts.index :: hosts.count]
    for i, chunk in enumerate(chunks):
        job = _Job(path, config, sweeps[chunk.program], chunk, reports=[])
        with locked(path, CHECKPOINTS, chunk.name) as require_place, enough_memory(len(chunk.seeds)):
            for progress in _train_chunk(job, require_place, from_timestep, should_stop):
                if progress.rows is not None and hosts.index == 0:
                    require_place()
                    tables.write_metrics(path, [*done, *job.reports])
                yield progress
        done += job.reports
        following = {later.program for later in chunks[i + 1 :]}
        if following and chunk.program not in following:
            forget_programs(job.sweep)


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
    config: RunConfig
    sweep: Sweep
    chunk: Chunk
    reports: list[pa.Table]

    @property
    def train(self) -> TrainConfig:
        """The settings that all of the chunk have in common; of the others those of its first cell."""
        return with_settings(self.config.train, self.config.cells[self.chunk.cells[0]])


def _train_chunk(
    job: _Job, require_place: Callable[[], None], from_timestep: int | None, should_stop: Callable[[], bool]
) -> Iterator[Progress]:
    config, chunk, trainer = job.config, job.chunk, job.sweep.trainer
    last_turn, saves = int(trainer.segments.sum()), _checkpoint_turns(config, job.train)
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
            yield Progress(chunk, found.timestep, tables.last_report(rows) if rows.num_rows else None)
        turn = 0 if found is None else found.turn
        if turn == last_turn:
            return
        clock, of_cells = _Clock(), tables.cell_columns(config, chunk.cells)
        state = _state(job, found)
        for state, turn, metrics in run(job.sweep, state, turn=turn, pauses=saves):  # noqa: B020
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
                    checkpoint.to_host(state, trainer.seed_axes, len(chunk.seeds)),
                    parquet.to_bytes(tables.concat_reports(job.reports)),
                    has_training=stop or config.checkpoint_every > 0,
                )
            if stop:
                writer.wait()
                raise Interrupted(timestep)
            yield Progress(chunk, timestep, rows)
        writer.wait()


def _state(job: _Job, found: checkpoint.Checkpoint | None) -> TrainState:
    """The state to go on from, on the device."""
    seeds, arguments = job.chunk.seeds, job.config.arguments(job.chunk.cells)
    if found is None:
        return start(job.sweep, seeds, arguments)
    example, num_rows = _example(job.config, job.chunk, job.sweep.trainer, found)
    return place(checkpoint.read_state(found, example, num_rows), job.sweep)


def _example(config: RunConfig, chunk: Chunk, trainer: Trainer, found: checkpoint.Checkpoint) -> tuple[TrainState, int]:
    """Shapes and dtypes of a chunk's state, and how many rows of its replay hold data at a checkpoint."""
    train, arguments = with_settings(config.train, config.cells[chunk.cells[0]]), config.arguments(chunk.cells)
    _, example = jax.eval_shape(over_seeds(trainer).begin, seed_keys(jnp.asarray(chunk.seeds)), arguments)
    require_host_memory(bytes_of(example), found.path)
    num_steps = num_prefill_steps(train, experience_of(config.agent_name, train)) + found.turn
    if example.replay_state is None:
        return example, 0
    return example, min(num_steps, jax.tree.leaves(example.replay_state.data)[0].shape[1])


def require_fitting(path: Path, config: RunConfig, trainers: Sequence[Trainer]) -> None:
    """Makes sure that a run can go on with other settings than it had, from whatever it has saved.

    Args:
        path: of the run.
        config: what it is to be trained with.
        trainers: of each of its programs.

    Raises:
        InputError: a checkpoint is broken, of another version, of other settings, or of a timestep after the end.
    """
    for chunk in config.chunks:
        found = checkpoint.newest(checkpoint_folder(path, chunk), same_training(config))
        if found is not None:
            require_within_end(config, found.path, found.timestep)
            tables.read(found.path / checkpoint.TABLE, config, chunk)
            checkpoint.read_state(found, *_example(config, chunk, trainers[chunk.program], found), only_check=True)


def _checkpoint_turns(config: RunConfig, train: TrainConfig) -> np.ndarray:
    """Turns after which a checkpoint is due, but for the last."""
    if not config.checkpoint_every:
        return np.zeros(0, np.int32)
    timesteps = np.arange(config.checkpoint_every, train.total_timesteps, config.checkpoint_every)
    turns = turns_at(timesteps, train, experience_of(config.agent_name, train))
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
