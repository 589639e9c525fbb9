"""Contestants in turns, what they measured, and the table of it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from peer_environments import Installation, PeerError
from peer_processes import Process
from rounds import in_words

OURS = "jaxsoft"


class Contestant(NamedTuple):
    """One way to do a setting.

    Attributes:
        peer: whose environment it runs in, `jaxsoft` or a name of `PEERS`.
        script: of `contestants/`.
        settings: for its `make`, by name.
    """

    peer: str
    script: str
    settings: dict[str, Any]


class Setting(NamedTuple):
    """One task for all its contestants, among them `OURS`."""

    name: str
    contestants: dict[str, Contestant]


class Measured:
    """Results by setting, contestant and round, and errors by setting and contestant.

    Args:
        path: of JSON lines, one a result.
        goes_on: take what is there already, of contestants whose settings are still the same.
    """

    def __init__(self, path: Path, goes_on: bool) -> None:
        self.errors: dict[tuple[str, str], str] = {}
        self._path, self._lines = path, []
        if goes_on and path.exists():
            self._lines = [json.loads(line) for line in path.read_text().splitlines()]
        elif path.exists():
            path.unlink()

    def results(self, setting: Setting, name: str) -> dict[int, dict[str, Any]]:
        """Of one contestant, by round."""
        wanted = self._key(setting, name)
        return {line["round"]: line for line in self._lines if all(line[key] == wanted[key] for key in wanted)}

    def add(self, setting: Setting, name: str, round_: int, result: Mapping[str, Any]) -> None:
        self._lines.append({**self._key(setting, name), "round": round_, **result})
        with self._path.open("a") as file:
            file.write(json.dumps(self._lines[-1]) + "\n")

    def copy(self, path: Path) -> None:
        """Writes everything that was measured and that failed, a JSON line each."""
        errors = [{"setting": where[0], "contestant": where[1], "error": error} for where, error in self.errors.items()]
        path.write_text("".join(json.dumps(line) + "\n" for line in (*self._lines, *errors)))

    def _key(self, setting: Setting, name: str) -> dict[str, Any]:
        return {"setting": setting.name, "contestant": name, "settings": setting.contestants[name].settings}


def measure(
    settings: Sequence[Setting],
    rounds: int,
    installations: Mapping[str, Installation | PeerError],
    measured: Measured,
    *,
    deadline: float,
    logs: Path,
    environment: dict[str, str],
    is_concurrent: bool,
) -> None:
    """Runs all contestants of all settings once in each round, as far as time allows; an error ends a contestant.

    Args:
        settings: whose processes live side by side, idle unless it is their turn.
        rounds: how many; a round that is already measured is not repeated.
        installations: of the peers, or why there is none.
        measured: to which results and errors are added.
        deadline: of `time.monotonic`: nothing goes on after it, nothing begins that would not end before it, and
            building may take half of the time until then.
        logs: a folder for what the processes print.
        environment: of the processes.
        is_concurrent: let them build side by side.
    """
    processes: dict[tuple[str, str], Process] = {}

    def fail(setting: Setting, name: str, error: PeerError) -> None:
        measured.errors[setting.name, name] = str(error)
        print(f"{setting.name}: {name}: {error}", flush=True)

    contestants = [
        (setting, name)
        for setting in settings
        for name in setting.contestants
        if len(measured.results(setting, name)) < rounds
    ]
    half = (time.monotonic() + deadline) / 2
    try:
        for step in ("start", "build") if is_concurrent else ("start and build",):
            for setting, name in contestants:
                contestant, key = setting.contestants[name], (setting.name, name)
                try:
                    if "start" in step:
                        installation = installations[contestant.peer]
                        if isinstance(installation, PeerError):
                            raise installation
                        log = logs / f"{len(list(logs.iterdir()))}-{contestant.peer}.log"
                        processes[key] = Process(installation, contestant.script, contestant.settings, environment, log)
                    if "build" in step and key in processes:
                        processes[key].built(half)
                except PeerError as error:
                    processes.pop(key, None)
                    fail(setting, name, error)
        seconds: dict[tuple[str, str], float] = {}
        for round_ in range(rounds):
            for setting, name in contestants:
                key = (setting.name, name)
                begin = time.monotonic()
                is_done = round_ in measured.results(setting, name)
                if key not in processes or is_done or begin + seconds.get(key, 0.0) > deadline:
                    continue
                try:
                    built, result = processes[key].built(deadline), processes[key].run(round_, deadline)
                except PeerError as error:
                    del processes[key]
                    fail(setting, name, error)
                    continue
                seconds[key] = time.monotonic() - begin
                measured.add(setting, name, round_, built | result)
                returns = in_words(result["returns"], ".1f")
                print(f"{setting.name}: {name} {result['steps_per_second']:,.0f}, return {returns}", flush=True)
    finally:
        for process in processes.values():
            process.close()


COLUMNS = ("setting", "library", "steps/s", "jaxsoft / this", "return", "steps", "compile, s", "rounds")


def rows(settings: Iterable[Setting], measured: Measured) -> list[tuple[str, ...]]:
    """The table: medians with (min – max), of rounds and for returns of all seeds in all rounds."""
    table = []
    for setting in settings:
        ours = measured.results(setting, OURS)
        for name, contestant in setting.contestants.items():
            title = setting.name if name == OURS else ""
            results = measured.results(setting, name)
            if not results:
                table.append((title, name, measured.errors.get((setting.name, name), "no time left"), *5 * ("",)))
                continue
            speeds = [result["steps_per_second"] for result in results.values()]
            ratios = [
                ours[i]["steps_per_second"] / result["steps_per_second"] for i, result in results.items() if i in ours
            ]
            seconds = next(iter(results.values()))["compile"]
            table.append(
                (
                    title,
                    name,
                    in_words(speeds, ",.0f"),
                    in_words(ratios) if ratios and name != OURS else "",
                    in_words(np.concatenate([result["returns"] for result in results.values()]), ".1f"),
                    f"{contestant.settings['num_steps']:,}",
                    "" if seconds is None else f"{seconds:.0f}",
                    str(len(results)),
                )
            )
    return table


def versions(settings: Iterable[Setting], measured: Measured) -> list[str]:
    """What each peer ran with, a line each."""
    found = {}
    for setting in settings:
        for name, contestant in setting.contestants.items():
            for result in measured.results(setting, name).values():
                packages = ", ".join(f"{package} {version}" for package, version in result["versions"].items())
                found[contestant.peer] = packages + (f" on {result['device']}" if result["device"] else "")
    return [f"{peer}: {packages}" for peer, packages in found.items()]
