"""Real processes, killed and asked to stop: what goes on afterwards ends as if nothing had happened.

The shortest form runs with all tests, more with `make test-thorough`, and `make soak` runs the long one.
"""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest
from support.processes import Shell, wait_for_writing
from support.run_numbers import assert_same

from jaxsoft.runs import config as config_file

TRAIN = (
    "train soft_q_stream finite/Chain-5 --num-seeds 2 --hidden-sizes 4 --total-timesteps 3000 --eval-every 500 "
    "--eval-episodes 1 --checkpoint-every 100 --keep-checkpoints 2 --out"
).split()


@pytest.fixture(scope="module")
def whole(shell: Shell, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing interrupts."""
    path = tmp_path_factory.mktemp("runs") / "whole"
    assert shell.run(*TRAIN, str(path)) == (0, "")
    return path


def go_on(path: Path) -> list[str]:
    """The arguments that start a run, or go on with it."""
    return ["train", "--resume", str(path)] if (path / config_file.CONFIG).exists() else [*TRAIN, str(path)]


def kill_at_random(shell: Shell, path: Path, rng: random.Random) -> bool:
    """Whether the process was killed before it had ended."""
    process = shell.start(*go_on(path))
    wait_for_writing(process, path)
    time.sleep(rng.uniform(0, 1))
    process.kill()
    process.communicate()
    return process.returncode == -signal.SIGKILL


def check_end(shell: Shell, path: Path, whole: Path) -> None:
    """Goes on to the end, and compares it."""
    assert shell.run(*go_on(path)) == (0, "")
    config = config_file.read_config(path)
    assert_same(path, whole, config)
    assert (path / "learning_curve.png").exists()


def test_asked_to_stop_it_saves_and_says_how_to_go_on(shell: Shell, whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    for number, status in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        process = shell.start(*go_on(path))
        wait_for_writing(process, path)
        if number == signal.SIGTERM:
            process.send_signal(signal.SIGSTOP)  # so that it is not over before the second one comes
            assert shell.run(*go_on(path))[0] == 2
            code, errors = shell.run(*go_on(path))
            assert code == 2
            assert errors.endswith("is in use by another process; nothing was changed in it\n")
            process.send_signal(signal.SIGCONT)
        process.send_signal(number)
        _, errors = process.communicate(timeout=300)
        assert process.returncode == status
        assert errors.endswith(f"; go on with: jaxsoft train --resume {path}\n")
        assert errors.startswith("jaxsoft: stopped at timestep ")
    check_end(shell, path, whole)


@pytest.mark.parametrize(("when", "number"), [pytest.param("half", 1, marks=pytest.mark.thorough), ("before", 12)])
def test_killed_while_it_writes(shell: Shell, whole: Path, tmp_path: Path, when: str, number: int) -> None:
    path = tmp_path / "run"
    assert shell.run(*go_on(path), kill_at=(when, number))[0] == -signal.SIGKILL
    check_end(shell, path, whole)


@pytest.mark.thorough
def test_killed_at_random(shell: Shell, whole: Path, tmp_path: Path) -> None:
    path, rng = tmp_path / "run", random.Random(0)
    assert kill_at_random(shell, path, rng)
    kill_at_random(shell, path, rng)
    check_end(shell, path, whole)


@pytest.mark.soak
def test_killed_at_every_kind_of_write_and_at_random(shell: Shell, whole: Path, tmp_path: Path) -> None:
    moments = [(when, number) for when in ("half", "before", "after") for number in (1, 4, 9)]
    num_killed = 0
    for when, number in moments:  # each goes on where the one before was killed
        path = tmp_path / f"{when}-{number}"
        killed = shell.run(*go_on(path), kill_at=(when, number))[0] == -signal.SIGKILL
        assert killed
        again = shell.run(*go_on(path), kill_at=(when, number + 1))[0] == -signal.SIGKILL
        num_killed += killed + again
        check_end(shell, path, whole)
        print(f"killed {when} write {number}, then {number + 1}: ended as the whole run", flush=True)
    rng = random.Random(1)
    for i in range(3):
        path = tmp_path / f"random-{i}"
        killed = [kill_at_random(shell, path, rng) for _ in range(3)]
        num_killed += sum(killed)
        check_end(shell, path, whole)
        print(f"killed {sum(killed)} times at random: ended as the whole run", flush=True)
    print(f"{num_killed} kills", flush=True)
    assert num_killed >= 20
