"""Run directories: self-describing, readable without anything else, and safe against half-written ones."""

import errno
import json
import resource
import shutil
from pathlib import Path

import gymnasium
import jax
import numpy as np
import pyarrow.parquet as pq
import pytest

import jaxsoft
from jaxsoft.cli import main
from jaxsoft.errors import InputError
from jaxsoft.reports import plots
from jaxsoft.runs import config as config_file
from jaxsoft.runs import directory, results, tables
from jaxsoft.runs.evaluation import evaluate_run
from jaxsoft.training.config import settings_of
from jaxsoft.training.evaluation import member_keys

NUM_SEEDS = 3
COMMAND = (
    "train sac gymnax/Pendulum-v1 --num-seeds 3 --seed 5 --total-timesteps 600 --eval-every 250 --eval-episodes 2 "
    "--hidden-sizes 16 16 --batch-size 16 --learning-starts 100 --out"
).split()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "small"
    assert main([*COMMAND, str(path)]) == 0
    return path


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "copy"))


def test_config_describes_the_whole_run(run: Path):
    config = json.loads((run / "config.json").read_text())
    assert config["agent"]["name"] == "sac"
    assert config["agent"]["hidden_sizes"] == [16, 16]
    assert config["env"] == "gymnax/Pendulum-v1"
    assert (config["seed"], config["num_seeds"], config["total_timesteps"]) == (5, NUM_SEEDS, 600)
    assert config["versions"]["jax"] == jax.__version__
    assert config["device"]
    assert settings_of(config_file.read_config(run).train)["batch_size"] == 16


def test_metrics_have_one_row_per_seed_and_evaluation(run: Path):
    table = pq.read_table(run / "metrics.parquet")
    assert table.column_names[:3] == ["seed", "timestep", "eval_return"]
    assert table["seed"].to_pylist() == [5, 6, 7] * 3
    assert table["timestep"].to_pylist() == [250] * 3 + [500] * 3 + [600] * 3
    for name in ("critic_loss", "actor_loss", "temperature", "entropy", "episode_return", "steps_per_second"):
        assert name in table.column_names
    assert np.isfinite(table["eval_return"].to_numpy()).all()


def test_nothing_is_pickled(run: Path):
    files = [path for path in run.rglob("*") if path.is_file()]
    assert len(files) > 4
    assert not any(path.suffix in {".pkl", ".pickle"} or path.read_bytes()[:1] == b"\x80" for path in files)


def test_the_same_command_twice_gives_the_same_metrics_to_the_bit(run: Path, tmp_path: Path):
    assert main([*COMMAND, str(tmp_path / "again")]) == 0
    first, second = (tables.read_metrics(path).drop_columns(["steps_per_second"]) for path in (run, tmp_path / "again"))
    for name in first.column_names:
        np.testing.assert_array_equal(first[name].to_numpy(), second[name].to_numpy(), err_msg=name)


def test_python_and_the_command_line_train_the_same(run: Path):
    env = jaxsoft.make_env("gymnax/Pendulum-v1")
    train = jaxsoft.make_train(
        "sac",
        env,
        total_timesteps=600,
        eval_every=250,
        eval_episodes=2,
        hidden_sizes=(16, 16),
        batch_size=16,
        learning_starts=100,
    )
    _, metrics = jax.jit(jax.vmap(train))(jax.vmap(jax.random.key)(np.arange(5, 8)))
    table = tables.read_metrics(run)
    for name in ("eval_return", "critic_loss", "temperature"):
        python, command_line = np.asarray(metrics[name]).T, table[name].to_numpy().reshape(-1, 3)
        np.testing.assert_allclose(python[0], command_line[0], rtol=1e-5, err_msg=name)
        # two programs round differently, by 1e-7; learning from what was rounded makes that 1e-3 in 500 updates
        np.testing.assert_allclose(python, command_line, rtol=1e-2, err_msg=name)


def test_evaluation_off_leaves_the_return_null_and_the_curve_drawn(tmp_path: Path):
    path = tmp_path / "run"
    assert main([*COMMAND, str(path), "--eval-every", "0"]) == 0
    table = tables.read_metrics(path)
    assert table["eval_return"].null_count == len(table)
    assert (path / "learning_curve.png").stat().st_size > 5_000


def test_loaded_policy_takes_one_observation_or_many_in_native_units(run: Path):
    policy = jaxsoft.load_policy(run, seed=6)
    obs = np.random.default_rng(0).normal(size=(7, 3))
    actions = policy(obs)
    assert isinstance(actions, np.ndarray)
    assert actions.shape == (7, 1)
    assert np.abs(actions).max() <= 2
    np.testing.assert_allclose(policy(obs[0]), actions[0], rtol=1e-5)
    assert not np.allclose(jaxsoft.load_policy(run, seed=5)(obs), actions)


def test_stochastic_policy_draws_anew_at_each_call(run: Path):
    policy = jaxsoft.load_policy(run, deterministic=False)
    obs = np.zeros(3, np.float32)
    first, second = policy(obs), policy(obs)
    assert not np.allclose(first, second)
    np.testing.assert_array_equal(jaxsoft.load_policy(run, deterministic=False)(obs), first)


def test_loaded_policy_is_the_evaluated_one(run: Path):
    """`eval` plays in gymnax, each seed from its own starts; stepped by hand from there, its policy earns the same."""
    returns = evaluate_run(run, num_episodes=1, deterministic=True, seed=3).returns
    env = jaxsoft.make_env("gymnax/Pendulum-v1")
    step, keys = jax.jit(env.step), member_keys(3, np.zeros(3, np.int32), np.arange(5, 8))
    for i in (0, 2):
        policy, (_, reset_key), total = jaxsoft.load_policy(run, seed=5 + i), jax.random.split(keys[i]), 0.0
        state, time_step = env.reset(jax.random.split(reset_key, 1)[0])
        while not time_step.done:
            state, time_step = step(jax.random.key(0), state, policy(np.asarray(time_step.obs)))  # it draws nothing
            total += float(time_step.reward)
        np.testing.assert_allclose(total, returns[i, 0], rtol=1e-3)


def test_loaded_policy_runs_in_gymnasium(run: Path):
    env, policy = gymnasium.make("Pendulum-v1"), jaxsoft.load_policy(run)
    obs, _ = env.reset(seed=0)
    for _ in range(20):
        obs, _, terminated, truncated, _ = env.step(policy(obs))
        assert not terminated
        assert not truncated


def test_wrong_observation_or_seed_is_told(run: Path):
    with pytest.raises(InputError, match=r"the observation has shape \(4,\); gymnax/Pendulum-v1 has \(3,\)"):
        jaxsoft.load_policy(run)(np.zeros(4))
    with pytest.raises(InputError, match=r"seed is 0; .* has seeds 5 to 7"):
        jaxsoft.load_policy(run, seed=0)


def test_no_run_directory(tmp_path: Path):
    with pytest.raises(InputError, match=r"is not a run directory: it has no config\.json"):
        jaxsoft.load_policy(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 3}', '{"format": 3, "agent": 3}'])
def test_config_cut_short(copy: Path, content: str):
    (copy / "config.json").write_text(content)
    with pytest.raises(InputError, match="is cut short or was changed by hand"):
        config_file.read_config(copy)


def test_config_of_another_format(copy: Path):
    config = json.loads((copy / "config.json").read_text()) | {"format": 99}
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="has format 99; this version reads 3"):
        config_file.read_config(copy)


def test_metrics_cut_short(copy: Path):
    content = (copy / "metrics.parquet").read_bytes()
    (copy / "metrics.parquet").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"metrics\.parquet is cut short, was changed"):
        tables.read_metrics(copy)
    (copy / "metrics.parquet").unlink()
    with pytest.raises(InputError, match=r"metrics\.parquet is missing"):
        tables.read_metrics(copy)


def test_checkpoint_missing(copy: Path):
    shutil.rmtree(copy / "checkpoints")
    with pytest.raises(InputError, match="is missing: the run was cut short before it was saved"):
        jaxsoft.load_policy(copy)


def test_checkpoint_cut_short(copy: Path):
    data = max((copy / "checkpoints").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    with pytest.raises(InputError, match=r"is broken: .* has \d+ bytes, not \d+; no earlier one is whole"):
        jaxsoft.load_policy(copy)


def test_checkpoint_of_another_configuration(copy: Path):
    config = json.loads((copy / "config.json").read_text())
    config["agent"]["hidden_sizes"] = [8, 8]
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        InputError, match=r"is of other settings: hidden_sizes is \[16, 16\] there and \[8, 8\] in config"
    ):
        jaxsoft.load_policy(copy)


def test_a_folder_with_something_in_it_keeps_all_of_it(run: Path, tmp_path: Path):
    config = config_file.read_config(run)
    for name in (".partial-metrics.parquet", "kept.txt"):
        (tmp_path / name).write_text("another's")
    with pytest.raises(InputError, match="is not empty; nothing was changed in it"):
        directory.create(tmp_path, config)
    assert {path.name for path in tmp_path.iterdir()} == {".partial-metrics.parquet", "kept.txt"}
    folder = tmp_path / "old" / directory.CHECKPOINTS
    folder.mkdir(parents=True)
    (folder / "500").mkdir()  # of a run whose config.json is lost
    with pytest.raises(InputError, match="is not empty; nothing was changed in it"):
        directory.create(folder.parent, config)


@pytest.mark.parametrize("was_there", [False, True])
def test_a_training_that_fails_before_its_first_checkpoint_leaves_nothing(
    run: Path, tmp_path: Path, was_there: bool
) -> None:
    config, path = config_file.read_config(run), tmp_path / "new"

    def fail_at_tracing(timestep: str = "") -> None:
        assert config_file.read_config(path) == config
        (path / tables.NAME).write_bytes(b"")
        (path / directory.CHECKPOINTS / "5-7" / timestep).mkdir(parents=True)
        raise TypeError("at tracing")

    if was_there:
        path.mkdir()
    for _ in range(2):  # and the next try is not refused
        with pytest.raises(TypeError, match="at tracing"), directory.new_run(path, config):
            fail_at_tracing()
        assert path.exists() == was_there
        assert not was_there or not list(path.iterdir())
    with pytest.raises(TypeError), directory.new_run(path, config):
        fail_at_tracing("000000000250")
    assert config_file.read_config(path) == config
    with pytest.raises(InputError, match="is not empty; nothing was changed in it"), directory.new_run(path, config):
        pass
    assert config_file.read_config(path) == config


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), BrokenPipeError(), SystemExit(1)])
def test_a_training_that_could_go_on_is_kept(run: Path, tmp_path: Path, error: BaseException) -> None:
    config, path = config_file.read_config(run), tmp_path / "new"

    def report() -> None:
        (path / tables.NAME).write_bytes(b"reported")
        raise error

    with pytest.raises(type(error)), directory.new_run(path, config):
        report()
    assert config_file.read_config(path) == config
    assert (path / tables.NAME).read_bytes() == b"reported"


def test_results_are_there_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    def write(picture: str) -> Path:
        columns = {"x": np.ones(3)}
        return results.write_results(
            tmp_path, {"method": "x"}, columns, columns, lambda file: (file.parent / picture).write_bytes(b"")
        )

    with pytest.raises(FileNotFoundError):
        write("nowhere/x.png")
    assert not list(tmp_path.iterdir())
    assert write("history.png").parent == tmp_path
    assert {path.name for path in tmp_path.iterdir()} == {
        *("result.npz", "history.parquet", "history.png", config_file.CONFIG)
    }


def test_a_picture_is_there_whole_or_as_it_was(run: Path, tmp_path: Path) -> None:
    picture = tmp_path / "curve.png"
    plots.draw([run], picture)
    before = picture.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, hard))
    try:
        with pytest.raises(InputError, match=r"curve\.png cannot be written: File too large"):
            plots.draw([run], picture)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["curve.png"]
    assert picture.read_bytes() == before
    assert plots.draw([run], tmp_path / "curve.svg").read_bytes().startswith(b"<?xml")
    with pytest.raises(InputError, match=r"curve\.txt; it must be a \.png, \.pdf or \.svg file"):
        plots.draw([run], tmp_path / "curve.txt")


def test_what_a_process_left_that_was_killed_before_it_began_is_no_obstacle(run: Path, tmp_path: Path):
    (tmp_path / directory.CHECKPOINTS).mkdir()
    (tmp_path / directory.CHECKPOINTS / ".lock").touch()
    (tmp_path / ".partial-config.json").write_text("{")
    directory.create(tmp_path, config_file.read_config(run))
    assert {path.name for path in tmp_path.iterdir()} == {config_file.CONFIG, directory.CHECKPOINTS}
