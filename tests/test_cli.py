"""The command line: what it prints, and one clear line for what it cannot do."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jaxsoft.cli import main
from jaxsoft.cli.train import canonical_options, parse_train
from jaxsoft.config import make_config, settings_of

SMALL = "--total-timesteps 400 --eval-every 200 --eval-episodes 2 --hidden-sizes 8 --batch-size 8 --learning-starts 100"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "run"
    assert main(["train", "sac", "gymnax/Pendulum-v1", "--num-seeds", "2", *SMALL.split(), "--out", str(path)]) == 0
    return path


def test_train_prints_a_table_and_names_its_files(tmp_path: Path, capsys: pytest.CaptureFixture):
    out = tmp_path / "run"
    assert main(["train", "sac", "gymnax/Pendulum-v1", *SMALL.split(), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "return, IQM    steps/s" in printed  # of one seed there is no interval
    assert "       200 " in printed
    assert "       400 " in printed
    assert {path.name for path in out.iterdir()} == {
        "config.json",
        "metrics.parquet",
        "checkpoints",
        "learning_curve.png",
    }


def test_eval_prints_a_table(run: Path, capsys: pytest.CaptureFixture):
    assert main(["eval", str(run), "--num-episodes", "3"]) == 0
    printed = capsys.readouterr().out
    assert "sac in gymnax/Pendulum-v1, deterministic, 3 episodes per seed" in printed
    assert "IQM over 2 seeds (min – max): " in printed


def test_eval_json_is_one_object_with_a_return_per_seed(run: Path, capsys: pytest.CaptureFixture):
    answers = []
    for flag in ("--deterministic", "--stochastic"):
        assert main(["eval", str(run), flag, "--num-episodes", "3", "--json"]) == 0
        answers.append(json.loads(capsys.readouterr().out))
    assert answers[0]["seeds"] == [0, 1]
    assert len(answers[0]["eval_return"]) == 2
    assert answers[0]["eval_length"] == [200, 200]
    assert answers[0]["policy"] == "deterministic"
    assert answers[0]["eval_return"] != answers[1]["eval_return"]


def test_a_run_is_judged_in_gymnasiums_own_environment(run: Path, capsys: pytest.CaptureFixture):
    answers = []
    for env in ("gymnax/Pendulum-v1", "gymnasium/Pendulum-v1"):  # the same task twice
        assert main(["eval", str(run), "--env", env, "--num-episodes", "40", "--json"]) == 0
        answers.append(json.loads(capsys.readouterr().out))
    for answer in answers:
        assert answer["trained_in"] == "gymnax/Pendulum-v1"
        assert answer["eval_length"] == [200, 200]
    assert answers[1]["env"] == "gymnasium/Pendulum-v1"
    # two means of 40 returns whose standard deviation is about 300
    for ours, theirs in zip(*(answer["eval_return"] for answer in answers), strict=True):
        assert ours != theirs
        assert ours == pytest.approx(theirs, abs=4 * 300 * (2 / 40) ** 0.5)
    assert main(["eval", str(run), "--env", "gymnasium/Pendulum-v1", "--num-episodes", "2", "--stochastic"]) == 0
    printed = capsys.readouterr().out
    assert "sac in gymnasium/Pendulum-v1, trained in gymnax/Pendulum-v1, stochastic, 2 episodes per seed" in printed


def test_a_run_is_judged_in_another_of_our_environments(run: Path, capsys: pytest.CaptureFixture):
    env = "gymnax/Pendulum-v1?max_steps_in_episode=20"
    assert main(["eval", str(run), "--env", env, "--num-episodes", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["eval_length"] == [20, 20]


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ("gymnasium/CartPole-v1", "the policies do not fit: observations [3] and actions Box[1] in [-2, 2] in gymnax/"),
        ("gymnax/CartPole-v1", "the policies do not fit"),
        ("gymnasium/Nothing-v0", "gymnasium/Nothing-v0 cannot be built"),
        ("gymnasium/Blackjack-v1", "gymnasium/Blackjack-v1 observes a Tuple; only arrays are supported"),
        ("gymnax/Nothing-v0", "unknown environment 'gymnax/Nothing-v0'"),
    ],
)
def test_a_run_is_not_judged_where_its_policies_do_not_fit(
    run: Path, env: str, message: str, capsys: pytest.CaptureFixture
):
    assert main(["eval", str(run), "--env", env, "--num-episodes", "1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_plot_draws_one_run_or_many(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    picture = tmp_path / "both.png"
    assert main(["plot", str(run), str(run), "--out", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    (run / "learning_curve.png").unlink()
    assert main(["plot", str(run)]) == 0
    assert (run / "learning_curve.png").exists()


def test_list_shows_agents_environments_spaces_and_presets(capsys: pytest.CaptureFixture):
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (pendulum,) = [line for line in lines if "gymnax/Pendulum-v1" in line]
    assert "Box[1] in [-2, 2]" in pendulum
    assert "sac" in pendulum
    (hopper,) = [line for line in lines if "brax/hopper " in line]
    assert "11" in hopper
    assert "Box[3] in [-1, 1]" in hopper
    assert "1,000" in hopper
    assert any("mjx/InvertedPendulum-v5" in line and "Box[1] in [-3, 3]" in line for line in lines)
    assert any("gymnax/CartPole-v1" in line and "Discrete(2)" in line for line in lines)
    assert [line.strip("│ ").split()[2:] for line in lines if line.strip("│ ").startswith("ppo ")] == [
        ["continuous,", "discrete"]
    ]


def test_help_and_version(capsys: pytest.CaptureFixture):
    for argv in ([], ["--help"], ["train"], ["train", "--help"], ["--version"]):
        assert main(argv) == 0
        assert "jaxsoft" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        main(["train", "sac", "--help"])
    assert stopped.value.code == 0
    assert "--agent.learning-rate" in capsys.readouterr().out


def test_options_are_read_over_the_preset():
    out, config, _ = parse_train(
        "sac", ["gymnax/MountainCarContinuous-v0", "--agent.discount", "0.9", "--num-seeds", "3"]
    )
    preset = settings_of(make_config("sac", "gymnax/MountainCarContinuous-v0", {}))
    train = settings_of(config.train)
    assert train["discount"] == 0.9
    assert train["random_action_repeat"] == preset["random_action_repeat"] > 1
    assert train["total_timesteps"] == preset["total_timesteps"]
    assert config.seeds.tolist() == [0, 1, 2]
    assert out.parts[0] == "runs"
    out, config, _ = parse_train("sac", ["gymnax/MountainCarContinuous-v0?max_steps_in_episode=99"])
    assert config.env_id.endswith("?max_steps_in_episode=99")
    assert settings_of(config.train) == preset
    assert "?" not in out.name


def test_a_setting_is_found_with_and_without_its_prefix():
    config = make_config("sac", "", {})
    written = ["--learning-rate", "1", "--agent.num-envs=2", "--agent.polyak", "1", "--no-learn-temperature", "x"]
    assert canonical_options(written, config) == [
        "--agent.learning-rate",
        "1",
        "--num-envs=2",
        "--agent.polyak",
        "1",
        "--agent.no-learn-temperature",
        "x",
    ]


PENDULUM = ["train", "sac", "gymnax/Pendulum-v1"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["trian"], "unknown command 'trian'; did you mean train?"),
        (["train", "sca", "gymnax/Pendulum-v1"], "unknown agent 'sca'; did you mean sac?"),
        (
            ["train", "sac", "gymnax/Pendulm-v1"],
            "unknown environment 'gymnax/Pendulm-v1'; did you mean gymnax/Pendulum-v1",
        ),
        (["train", "sac", "Pendulum-v1"], "unknown environment 'Pendulum-v1'; did you mean gymnax/Pendulum-v1"),
        (["train", "sac", "gymnax/CartPole-v1"], "sac needs continuous actions"),
        (["train", "soft_q", "gymnax/Pendulum-v1"], "soft_q needs discrete actions"),
        (["train", "sac", "gymnasium/Hopper-v5"], "gymnasium/Hopper-v5 runs on the host"),
        (["train", "sac", "brax/hopper?backend=x"], "backend is 'x'; it must be one of spring,"),
        ([*PENDULUM, "--num-seeds", "0"], "num_seeds is 0; it must be a positive integer"),
        ([*PENDULUM, "--seed", "-1"], "seed is -1"),
        ([*PENDULUM, "--num-envs", "0"], "num_envs is 0"),
        ([*PENDULUM, "--agent.batch-size", "0"], "batch_size is 0"),
        ([*PENDULUM, "--agent.replay-capacity", "-1"], "replay_capacity is -1"),
        ([*PENDULUM, "--hidden-sizes", "8", "0"], "hidden_sizes is (8, 0)"),
        ([*PENDULUM, "--total-timesteps", "0"], "total_timesteps is 0"),
        ([*PENDULUM, "--eval-episodes", "0"], "eval_episodes is 0"),
        ([*PENDULUM, "--nm-seeds", "3"], "Unrecognized options: --nm-seeds, 3; did you mean --num-seeds?"),
        ([*PENDULUM, "--num-seeds", "many"], "--num-seeds: invalid literal for int() with base 10: 'many'"),
        (["train", "sac"], "Missing from jaxsoft train sac: ENV"),
        (["eval", "runs/x", "--num-epsodes", "3"], "did you mean --num-episodes?"),
        (["extend", "runs/x"], "Missing from jaxsoft extend: --total-timesteps"),
        (["tabular", "soft-q-lambda", "finite/Chain-5", "--lamda", "0.9"], "did you mean --lambda?"),
        ([*PENDULUM, "--agent.batch-size", "300", "--agent.replay-capacity", "200"], "batch_size is 300, more than"),
        ([*PENDULUM, "--num-envs", "300", "--agent.replay-capacity", "200"], "replay_capacity is 200, less than"),
        ([*PENDULUM, "--total-timesteps", "300"], "total_timesteps is 300, but the first update comes after 500"),
        (["list", "all"], "list takes no arguments"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    argv: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture
):
    out = tmp_path / "run"
    where = ["--out", str(out)] if argv[:1] == ["train"] else []
    assert main([*argv, *where]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.startswith("jaxsoft: error: ")
    assert captured.err.count("\n") == 1
    assert not out.exists()


def test_output_folder_with_something_in_it_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "kept.txt").write_text("mine")
    assert main([*PENDULUM, "--out", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "is not empty; nothing was changed in it" in line
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]


def test_output_folder_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        assert main([*PENDULUM, "--out", str(out)]) == 2
        error = capsys.readouterr().err
        assert "cannot be written" in error
        assert error.count("\n") == 1


@pytest.mark.parametrize("command", ["eval RUN", "plot RUN", "extend RUN --total-timesteps 9", "train --resume RUN"])
def test_what_is_no_run_directory(command: str, tmp_path: Path, capsys: pytest.CaptureFixture):
    for path in (tmp_path, tmp_path / "missing"):
        assert main(command.replace("RUN", str(path)).split()) == 2
        error = capsys.readouterr().err
        assert "is not a run directory" in error
        assert error.count("\n") == 1
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("command", "name", "message"),
    [
        ("eval", "config.json", "is cut short or was changed by hand"),
        ("plot", "config.json", "is cut short or was changed by hand"),
        ("plot", "metrics.parquet", "metrics.parquet is missing or cut short"),
        ("eval", "checkpoints", "is missing: the run was cut short before it was saved"),
    ],
)
def test_a_run_directory_that_is_cut_short(
    run: Path, command: str, name: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture
):
    broken = shutil.copytree(run, tmp_path / "run") / name
    if broken.is_dir():
        shutil.rmtree(broken)
    else:
        broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    assert main([command, str(broken.parent)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_eval_refuses_contradictions_and_empty_evaluations(run: Path, capsys: pytest.CaptureFixture):
    assert main(["eval", str(run), "--deterministic", "--stochastic"]) == 2
    assert "not both" in capsys.readouterr().err
    assert main(["eval", str(run), "--num-episodes", "0"]) == 2
    assert "num_episodes is 0" in capsys.readouterr().err


def test_a_process_exits_with_status_2_and_without_a_traceback(tmp_path: Path):
    command = [sys.executable, "-m", "jaxsoft", "train", "sac", "gymnax/Nothing-v0", "--out", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr + done.stdout
    assert done.stderr.count("\n") == 1
