"""Several devices and several processes on this machine: every seed's numbers are those of one process, one device.

The runs are sweeps of two cells, so that the settings that go with the seeds are divided, too.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from support.processes import Shell, wait_for_writing
from support.run_numbers import results

from jaxsoft.cpu import num_cores
from jaxsoft.fleet.devices import fewest_devices, spread
from jaxsoft.runs import config as config_file
from jaxsoft.runs import directory, tables

TRAIN = (
    "train soft_q_stream finite/Chain-5 --num-seeds 3 --hidden-sizes 4 --total-timesteps 600 --eval-every 200 "
    "--eval-episodes 1 --checkpoint-every 50 --sweep temperature=0.1,0.5 --out"
).split()


@pytest.fixture(scope="module")
def alone(shell: Shell, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seeds of two cells on one device."""
    path = tmp_path_factory.mktemp("runs") / "alone"
    assert shell.run(*TRAIN, str(path)) == (0, "")
    return path


def on_devices(number: int) -> Shell:
    return Shell(JAX_NUM_CPU_DEVICES=str(number))


def assert_same_numbers(path: Path, other: Path) -> None:
    """Each seed's metrics and parameters, however the seeds were divided.

    A program of three seeds sums in another order than one of six, and what was learned from rounded numbers rounds
    differently: the same to a ten-thousandth of the largest number of each kind.
    """
    ours, theirs = (columns_of(run) for run in (path, other))
    assert ours.keys() == theirs.keys()
    for name, x in ours.items():
        assert x.shape == theirs[name].shape
        if np.issubdtype(x.dtype, np.floating):
            largest = np.nanmax(np.abs(theirs[name]), initial=0)
            np.testing.assert_allclose(x, theirs[name], rtol=1e-4, atol=1e-4 * largest, err_msg=name)
        else:
            np.testing.assert_array_equal(x, theirs[name], err_msg=name)


def columns_of(path: Path) -> dict[str, np.ndarray]:
    table = tables.read_metrics(path).drop_columns(["steps_per_second", "failed_at", "failed_quantities"])
    columns = {name: table[name].to_numpy() for name in table.column_names}
    parts = [results(path, chunk, whole_table=False)[1] for chunk in config_file.read_config(path).chunks]
    per_seed = [name for name, x in parts[0].items() if x.ndim and not name.endswith("rest")]  # of sums: rounding
    return columns | {name: np.concatenate([part[name] for part in parts]) for name in per_seed}


def test_seeds_are_divided_among_all_devices(alone: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    several = on_devices(4)
    process = several.start(*TRAIN, str(path))
    wait_for_writing(process, path)
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 143
    assert "2 cells × 3 seeds, on 3 × cpu" in printed  # 2 of the 6 on each; a fourth would have none
    # it goes on with another number of devices
    assert on_devices(2).run("train", "--resume", str(path)) == (0, "")
    assert_same_numbers(path, alone)


def start_all(shell: Shell, num_processes: int, *arguments: str) -> list[subprocess.Popen]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = f"--distributed --coordinator 127.0.0.1:{port} --num-processes {num_processes} --heartbeat-timeout 10"
    return [
        shell.start(*arguments, *where.split(), "--process-id", str(process_id)) for process_id in range(num_processes)
    ]


@pytest.mark.thorough
def test_two_processes_with_two_devices_train_one_run(alone: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    processes = start_all(on_devices(2), 2, *TRAIN, str(path))
    outputs = [process.communicate(timeout=400) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert "2 cells × 3 seeds, on 2 × cpu, process 0 of 2" in outputs[0][0]
    assert {folder.name for folder in (path / directory.CHECKPOINTS).iterdir()} == {".lock", "0.0-0.2", "1.0-1.2"}
    assert_same_numbers(path, alone)
    assert (path / "learning_curve.png").exists()


@pytest.mark.soak
def test_where_one_process_is_killed_the_others_stop_and_any_number_goes_on(
    shell: Shell, alone: Path, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    first, second = start_all(on_devices(2), 2, *TRAIN, str(path))
    folder = path / directory.CHECKPOINTS / "1.0-1.2"
    while second.poll() is None and not list(folder.glob("0*")):
        pass
    worker = worker_of(second.pid)
    subprocess.run(["kill", "-KILL", str(worker)], check=True)
    second.communicate(timeout=100)
    _, errors = first.communicate(timeout=100)
    assert first.returncode == 1
    told = errors.splitlines()[-1]
    assert told.startswith("jaxsoft: another process of this run has ended, and so this one was ended, too.")
    assert "jaxsoft train --resume RUN --distributed" in told
    assert shell.run("train", "--resume", str(path)) == (0, "")  # one process, one device
    assert_same_numbers(path, alone)


def worker_of(supervisor: int) -> int:
    """The process that does the work of a distributed run."""
    return int(Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()[0])


def spread_seeds(what: str, num_seeds: int, **environment: str) -> dict[str, float]:
    """What `spread_seeds.py` prints, where nothing but these variables says how many devices there are."""
    inherited = {name: value for name, value in os.environ.items() if name != "JAX_NUM_CPU_DEVICES"}
    program = [sys.executable, str(Path(__file__).parents[1] / "support" / "spread_seeds.py"), what, str(num_seeds)]
    output = subprocess.run(program, env=inherited | environment, text=True, capture_output=True, check=True).stdout
    return json.loads(output)


@pytest.mark.thorough
def test_every_core_is_a_device():
    found = spread_seeds("train", 2 * num_cores())
    assert found["local_devices"] == found["devices"] == num_cores()
    assert found["error"] < 1e-4


@pytest.mark.parametrize(
    ("num_seeds", "variables", "local_devices", "devices"),
    [
        (6, {"JAX_NUM_CPU_DEVICES": "4"}, 4, 3),  # 4 do not divide 6
        (4, {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}, 4, 4),
        (1, {"JAX_NUM_CPU_DEVICES": "2"}, 2, 1),
    ],
)
def test_a_number_of_devices_that_was_given_holds(
    num_seeds: int, variables: dict[str, str], local_devices: int, devices: int
):
    found = spread_seeds("draw", num_seeds, **variables)
    assert (found["local_devices"], found["devices"]) == (local_devices, devices)
    assert found["error"] < 1e-4


@pytest.mark.parametrize("block", [None, 1, 2, 8])
def test_blocks_give_what_all_at_once_do(block: int | None):
    def normal(key: jax.Array, scale: jax.Array) -> dict[str, jax.Array]:
        return {"drawn": scale * jax.random.normal(key, (3,)), "twice": 2 * scale}

    keys, scales = jax.random.split(jax.random.key(0), 5), jax.numpy.arange(5.0)
    found = spread(normal, block=block)(keys, scales)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), found, jax.vmap(normal)(keys, scales))


def weighted_normal(weight: jax.Array | float) -> jax.stages.Wrapped:
    return spread(lambda key: weight * jax.random.normal(key, (3,)))


def test_spread_seeds_can_be_a_part_of_another_program():
    keys = jax.random.split(jax.random.key(0), 4)
    alone = spread(partial(jax.random.normal, shape=(3,)))
    expected = 2 * alone(keys)
    np.testing.assert_array_equal(jax.jit(lambda keys: 2 * alone(keys))(keys), expected)
    np.testing.assert_array_equal(jax.jit(lambda weight: weight * alone(keys))(2.0), expected)
    np.testing.assert_array_equal(jax.jit(lambda weight: weighted_normal(weight)(keys))(2.0), expected)
    slope = jax.grad(lambda weight: weighted_normal(weight)(keys).sum())(2.0)
    np.testing.assert_allclose(slope, alone(keys).sum(), rtol=1e-5)
    np.testing.assert_array_equal(jax.lax.map(lambda weight: weight * alone(keys), jax.numpy.array([2.0]))[0], expected)
    np.testing.assert_array_equal(2 * jax.vmap(alone)(keys.reshape(2, 2)).reshape(4, 3), expected)


def test_spread_seeds_can_be_traced_as_a_jitted_function(key: jax.Array):
    assert spread(jax.random.normal).trace(jax.random.split(key, 4)).out_info.shape == (4,)


@pytest.mark.parametrize(("num_seeds", "num_devices", "used"), [(1, 4, 1), (4, 4, 4), (5, 4, 3), (8, 3, 3), (9, 4, 3)])
def test_no_more_devices_than_make_it_faster(num_seeds: int, num_devices: int, used: int):
    devices = fewest_devices(num_seeds, range(num_devices))
    assert len(devices) == used
    assert -(-num_seeds // used) == -(-num_seeds // num_devices)  # seeds of the fullest device
