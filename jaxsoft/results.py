"""Runs from Python: `train` makes one, `open_run` opens one; both give a `Result`."""

from __future__ import annotations

import atexit
import shutil
import signal
import tempfile
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxsoft.agents import get_agent, register_agent
from jaxsoft.envs import env_of_run
from jaxsoft.errors import InputError
from jaxsoft.fleet.grid import split_sweep
from jaxsoft.reports.background import Logging
from jaxsoft.reports.loggers import check_loggers
from jaxsoft.reports.plots import draw
from jaxsoft.reports.progress import watched_bar
from jaxsoft.reports.series import Report, reports_of
from jaxsoft.reports.summary import Summary, summarise
from jaxsoft.runs import driver
from jaxsoft.runs.checkpoint import timesteps
from jaxsoft.runs.config import CONFIG, RUN_SETTINGS, RunConfig, read_config
from jaxsoft.runs.directory import checkpoint_folder
from jaxsoft.runs.driver import Interrupted
from jaxsoft.runs.evaluation import evaluate_run
from jaxsoft.runs.policies import Policy, load_policy, read_agents
from jaxsoft.runs.signals import catch_signals
from jaxsoft.runs.tables import read_metrics
from jaxsoft.training.config import make_config
from jaxsoft.types import AgentKind, Env

if TYPE_CHECKING:
    import pyarrow as pa

OnReport = Callable[[Report], Any]


def train(
    agent: str | AgentKind,
    env: str | Env,
    *,
    num_seeds: int = 1,
    seed: int = 0,
    out: str | Path | None = None,
    on_report: OnReport | None = None,
    loggers: Sequence[OnReport] = (),
    progress: bool | None = None,
    **settings: Any,
) -> Result:
    """Trains many seeds of an agent at once, as `jaxsoft train` does.

    >>> result = train(
    ...     "sac", "gymnax/Pendulum-v1", num_seeds=8, total_timesteps=20_000, learning_rate=[3e-4, 1e-3], out="runs/x"
    ... )  # doctest: +SKIP
    >>> action = result.policy(seed=0, learning_rate=1e-3)(obs)  # doctest: +SKIP

    Ctrl-C saves the run before it raises. On CPUs call `jaxsoft.use_all_cores()` first.

    Args:
        agent: its name, for example `sac`, or its kind.
        env: an id, for example `gymnax/Pendulum-v1`, or an environment whose `spec.id` no other environment has.
        num_seeds: seeds of every combination of settings.
        seed: the first one.
        out: run directory to write. By default a temporary one, which goes with the result.
        on_report: called with every `Report`; the training waits for it. What it raises ends the training, saved.
        loggers: from `jaxsoft.loggers`, or functions of a `Report`; the training does not wait for them.
        progress: show a bar; by default where a person watches: standard output is a terminal or a notebook.
        **settings: those of the agent, of training (`total_timesteps`, `num_envs`, …) and of the run
            (`seeds_per_chunk`, `checkpoint_every`, `keep_checkpoints`), over the preset for this environment. A list of
            values is swept over: `learning_rate=[3e-4, 1e-3]`, `hidden_sizes=[(64, 64), (256, 256)]`.

    Raises:
        InputError: names the setting, or the part of the environment, its value and what is allowed; or `out` is a run.
        KeyboardInterrupt: after Ctrl-C; says how to go on.
    """
    kind = get_agent(agent)
    run_settings = {name: settings.pop(name) for name in RUN_SETTINGS if name in settings}
    settings, grid = split_sweep(kind, settings)
    env_id = env if isinstance(env, str) else env.spec.id
    train_config = make_config(kind, env_id, settings)
    register_agent(kind)  # by its name the run directory knows it
    config = RunConfig(env_id, train_config, num_seeds=num_seeds, seed=seed, **run_settings, sweep=grid)
    if out is not None and (Path(out) / CONFIG).exists():
        way = ".extend(total_timesteps=…) trains it on" if open_run(out).is_finished else ".resume() goes on with it"
        raise InputError(f"out is {str(out)!r}, a run already: jaxsoft.open_run({str(out)!r}){way}")
    result = Result(
        Path(tempfile.mkdtemp(prefix="jaxsoft-") if out is None else out), None if isinstance(env, str) else env
    )
    if out is None:
        result._removal = weakref.finalize(result, shutil.rmtree, result.path, ignore_errors=True)
    return result._train(partial(driver.train, config=config), on_report, loggers, progress)


def open_run(path: str | Path, *, env: Env | None = None, agent: AgentKind | None = None) -> Result:
    """Opens a run directory, finished or not.

    >>> open_run("runs/x").metrics.to_pandas()  # doctest: +SKIP

    Args:
        path: of the run.
        env: the environment that it was trained in, where that cannot be made from its id.
        agent: the kind of its agent, where that is not one of jaxsoft's.

    Raises:
        InputError: `path` is no run directory.
    """
    if agent is not None:
        register_agent(get_agent(agent))
    read_config(Path(path))
    return Result(Path(path), env)


class Result:
    """A run: its settings, its metrics, and the policies that its seeds have learned by their newest checkpoints.

    >>> result = open_run("runs/x").extend(total_timesteps=40_000)  # doctest: +SKIP
    >>> result.evaluate(num_episodes=20).intervals  # doctest: +SKIP

    Attributes:
        path: its directory; a temporary one is removed with this object, or at the end of the process.
    """

    def __init__(self, path: Path, env: Env | None = None) -> None:
        self.path = path
        self._env = env
        self._removal: weakref.finalize[..., Any] | None = None

    def __repr__(self) -> str:
        config = self.config
        size = f"{len(config.cells)} cells × {config.num_seeds} seeds" if config.sweep else f"{config.num_seeds} seeds"
        at = f"timestep {self.timestep:,} of {config.last_timestep:,}"
        return f"Result({config.train.kind.name} in {config.env_id}, {size}, {at}, {str(self.path)!r})"

    @property
    def config(self) -> RunConfig:
        """The settings; `config.cells` are those of each cell of a sweep, in order."""
        return read_config(self.path)

    @property
    def env(self) -> Env:
        """The environment that it is trained in."""
        self._env = env_of_run(self.config.env_id) if self._env is None else self._env
        return self._env

    @property
    def timestep(self) -> int:
        """The timestep up to which all seeds are saved."""
        folders = (checkpoint_folder(self.path, chunk) for chunk in self.config.chunks)
        return min(max(timesteps(folder), default=0) for folder in folders)

    @property
    def is_finished(self) -> bool:
        """Whether all seeds are trained to the end."""
        return self.timestep >= self.config.last_timestep

    @property
    def states(self) -> Any:
        """The learned agents: the agent's state, leaves [num_seeds, ...]; of a sweep a list, one per cell.

        Raises:
            InputError: some seed has no checkpoint yet.
        """
        config, _, programs = read_agents(self.path, self.env)
        if sum(len(learned.seeds) for learned in programs) < len(config.cells) * config.num_seeds:
            raise InputError(f"{self.path} is not trained to its end: some seeds have no checkpoint; .resume() goes on")
        states = {
            cell: jax.tree.map(lambda x, own=learned.cells == cell: x[own], learned.states)
            for learned in programs
            for cell in np.unique(learned.cells).tolist()
        }
        return [states[i] for i in range(len(config.cells))] if config.sweep else states[0]

    @property
    def metrics(self) -> pa.Table:
        """A row for each seed and report, an Arrow table: `.to_pandas()`, `polars.from_arrow(…)`."""
        return read_metrics(self.path)

    def policy(
        self, *, seed: int | None = None, deterministic: bool = True, allow_failed: bool = False, **settings: Any
    ) -> Policy:
        """One seed's policy, NumPy in and NumPy out; see `load_policy`.

        >>> result.policy(seed=3, learning_rate=1e-3)(obs)  # doctest: +SKIP
        """
        how = {"seed": seed, "deterministic": deterministic, "allow_failed": allow_failed}
        return load_policy(self.path, **how, env=self.env, **settings)

    def evaluate(
        self, *, num_episodes: int = 100, deterministic: bool = True, seed: int = 0, env_id: str | None = None
    ) -> Summary:
        """Plays episodes with the policies of all seeds; see `evaluate_run`.

        >>> result.evaluate(num_episodes=20).intervals[0]  # doctest: +SKIP

        Args:
            num_episodes: of each seed.
            deterministic: act by the policies' modes, or by samples from them.
            seed: of the episodes.
            env_id: another environment, also gymnasium's own: `gymnasium/Hopper-v5`.

        Returns:
            `mean_returns` [num_cells, num_seeds], and for each cell an interval of the interquartile mean over seeds.
        """
        how = {"num_episodes": num_episodes, "deterministic": deterministic, "seed": seed, "env_id": env_id}
        return summarise(evaluate_run(self.path, **how, env=self.env))

    def plot(self, path: str | Path | None = None) -> Path:
        """Draws the learning curve, by default to `learning_curve.png` in the run directory; returns where it is.

        >>> result.plot("curve.pdf")  # doctest: +SKIP
        """
        return draw([self.path], Path(path or self.path / "learning_curve.png"))

    def resume(
        self, *, on_report: OnReport | None = None, loggers: Sequence[OnReport] = (), progress: bool | None = None
    ) -> Result:
        """Goes on to the numbers that the run would have ended with; for the arguments see `train`.

        >>> open_run("runs/x").resume()  # doctest: +SKIP
        """
        return self._train(driver.resume, on_report, loggers, progress)

    def extend(
        self,
        total_timesteps: int,
        *,
        on_report: OnReport | None = None,
        loggers: Sequence[OnReport] = (),
        progress: bool | None = None,
    ) -> Result:
        """Trains to a later timestep than the run was to; for the arguments see `train`.

        >>> open_run("runs/x").extend(40_000)  # doctest: +SKIP
        """
        return self._train(partial(driver.resume, total_timesteps=total_timesteps), on_report, loggers, progress)

    def _train(
        self,
        training: Callable[..., Any],
        on_report: OnReport | None,
        loggers: Sequence[OnReport],
        progress: bool | None,
    ) -> Result:
        """Iterates over `training(path, should_stop=…)`. Ctrl-C and an exception of `on_report` ask it to stop."""
        check_loggers(loggers)
        if on_report is not None and not callable(on_report):
            raise InputError(f"on_report is {on_report!r}; it must be a function of a report")
        raised: list[Exception] = []
        is_main = threading.current_thread() is threading.main_thread()
        with catch_signals([signal.SIGINT]) if is_main else nullcontext(lambda: False) as request:
            events = training(self.path, env=self._env, should_stop=lambda: bool(raised) or request())
            with closing(events):
                try:
                    config = next(events).plan.config
                    with Logging(loggers, self.path, config) as log, watched_bar(config, progress) as show:
                        for event in events:
                            show(event)
                            log(event)
                            _call(on_report, event, raised)
                except Interrupted as interrupted:
                    if self._removal is not None and self._removal.detach():  # there is no result to keep it
                        atexit.register(shutil.rmtree, self.path, ignore_errors=True)
                    message = f"stopped at timestep {interrupted.timestep:,}, saved; go on with: "
                    message += f"jaxsoft.open_run({str(self.path)!r}).resume()"
                    if not raised:
                        raise KeyboardInterrupt(message) from None
                    raised[0].add_note(message)
        if raised:
            raise raised[0]
        return self


def _call(on_report: OnReport | None, event: driver.Progress, raised: list[Exception]) -> None:
    """Calls `on_report` with what is new; an exception is noted, and nothing called after it."""
    if on_report is None or raised:
        return
    try:
        for report in reports_of(event):
            on_report(report)
    except Exception as error:
        raised.append(error)
