"""Options of the command line: how they are read, and one clear line for what cannot be."""

from pathlib import Path
from typing import Any

import pytest

from jaxsoft.agents import AGENTS
from jaxsoft.cli import main
from jaxsoft.cli.train import canonical_options, parse_train
from jaxsoft.training.config import make_config, settings_of


def test_options_are_read_over_the_preset():
    out, config, _ = parse_train(
        AGENTS["sac"], ["gymnax/MountainCarContinuous-v0", "--agent.discount", "0.9", "--num-seeds", "3"]
    )
    preset = settings_of(make_config("sac", "gymnax/MountainCarContinuous-v0", {}))
    train = settings_of(config.train)
    assert train["discount"] == 0.9
    assert train["random_action_repeat"] == preset["random_action_repeat"] > 1
    assert train["total_timesteps"] == preset["total_timesteps"]
    assert config.seeds.tolist() == [0, 1, 2]
    assert out.parts[0] == "runs"
    out, config, _ = parse_train(AGENTS["sac"], ["gymnax/MountainCarContinuous-v0?max_steps_in_episode=99"])
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


@pytest.mark.parametrize(
    ("written", "setting", "expected"),
    [
        ("--total-timesteps 1e4", "total_timesteps", 10_000),
        ("--num-envs=2.0", "num_envs", 2),
        ("--agent.batch-size 1e2", "batch_size", 100),
        ("--hidden-sizes 64 32", "hidden_sizes", (64, 32)),
        ("--hidden-sizes 64x32", "hidden_sizes", (64, 32)),
        ("--agent.hidden-sizes=1e2x8", "hidden_sizes", (100, 8)),
        ("--hidden-sizes none", "hidden_sizes", ()),
        ("--hidden-sizes None", "hidden_sizes", ()),
        ("--agent.normalise-obs true", "normalise_obs", True),
        ("--agent.normalise-obs=False", "normalise_obs", False),
        ("--normalise-obs", "normalise_obs", True),
        ("--no-normalise-obs", "normalise_obs", False),
        ("--learn_temperature false", "learn_temperature", False),
        ("--scale-rewards true", "scale_rewards", True),
        ("--target-entropy none", "target_entropy", None),
        ("--target-entropy -2", "target_entropy", -2.0),
    ],
)
def test_values_are_written_as_in_python_and_in_sweeps(written: str, setting: str, expected: Any):
    # The environment follows: what an option takes is not taken from it.
    _, config, _ = parse_train(AGENTS["sac"], ["gymnax/Pendulum-v1", *written.split(), "--num-seeds", "1e1"])
    assert settings_of(config.train)[setting] == expected
    assert config.num_seeds == 10


def test_sizes_end_before_the_environment():
    for written in ("64x64", "64 64", "=64 64", "none"):
        line = f"--hidden-sizes {written} gymnax/CartPole-v1 --num-seeds 3".replace(" =", "=")
        _, config, _ = parse_train(AGENTS["soft_q_replay"], [*line.split()])
        assert config.env_id == "gymnax/CartPole-v1"
        assert settings_of(config.train)["hidden_sizes"] == (() if written == "none" else (64, 64))


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
        ([*PENDULUM, "--num-seeds", "many"], "--num-seeds: 'many' is no whole number of 18 digits at most"),
        ([*PENDULUM, "--num-seeds", "1e0.5"], "'1e0.5' is no whole number"),
        ([*PENDULUM, "--num-seeds", "nan"], "'nan' is no whole number"),
        ([*PENDULUM, "--num-seeds", "1e999999999"], "'1e999999999' is no whole number"),
        ([*PENDULUM, "--num-seeds", ""], "'' is no whole number"),
        ([*PENDULUM, "--num-seeds"], "Missing value for argument '--num-seeds'"),
        ([*PENDULUM, "--num-seeds", "\x1b[31m\n[bold]"], r"'\x1b[31m\n[bold]' is no whole number"),
        ([*PENDULUM, "--batch-size", "1e12"], "batch_size is 1000000000000; it must be a positive integer below 2^31"),
        ([*PENDULUM, "--hidden-sizes", "64X64"], "--agent.hidden-sizes: '64X64' is no whole number"),
        ([*PENDULUM, "--hidden-sizes"], "Missing value for argument '--agent.hidden-sizes'"),
        ([*PENDULUM, "--hidden-sizes", "-1", "8"], "hidden_sizes is (-1, 8)"),
        (["train", "sac", "--hidden-sizes", "8x8", "Pendulum-v1"], "did you mean gymnax/Pendulum-v1"),
        ([*PENDULUM, "--normalise-obs=yes"], "normalise_obs is 'yes'; it must be true or false"),
        ([*PENDULUM, "--normalise-obs", "yes"], "normalise_obs is 'yes'; it must be true or false"),
        ([*PENDULUM, "--agent.normalise-obs", "1"], "normalise_obs is '1'; it must be true or false"),
        (["train", "sac", "--normalise-obs", "No", *PENDULUM[2:]], "normalise_obs is 'No'; it must be true or false"),
        (
            [*PENDULUM, "--no-normalise-obs", "true"],
            "--agent.no-normalise-obs is followed by 'true'; write --agent.nor",
        ),
        ([*PENDULUM, "--no-normalise-obs=true"], "write --agent.normalise-obs true or --agent.normalise-obs false"),
        ([*PENDULUM, "--normalise-obs", "--nm-seeds", "3"], "Unrecognized options: --nm-seeds, 3; did you mean"),
        (["eval", "run", "--json", "1"], "json is '1'; it must be true or false"),
        (["eval", "--json", "1", "2"], "1 is not a run directory"),
        (["eval", "--json", "1"], "1 is not a run directory"),
        (["train", "sac", "gymnax/Pendulum-v1?g=1&g=2"], "it names 'g' twice"),
        (["train", "sac", "gymnax/Pendulum-v1?max_steps_in_episode=0"], "it must be a positive integer"),
        (["train", "sac", "gymnax/Pendulum-v1?g=" + "[" * 5000], "it must be a finite number"),
        (["train", "sac", "\x1b]0;x\x07/\u202ey"], r"unknown environment '\x1b]0;x\x07/\u202ey'"),
        (["plot", "bad\udcff"], r"'bad\udcff' is not UTF-8; the names of files and folders must be"),
        (["plot", "x" * 300], "File name too long"),
        (["plot", "runs/x", "--out", "x.doc"], "out is 'x.doc'; it must be a .png file"),
        (["\x1b[2J"], r"unknown command '\x1b[2J'"),
        (["", "--help"], "unknown command ''"),
        (["--"], "unknown command '--'"),
        (["train", "sac"], "Missing from jaxsoft train sac: ENV"),
        (["eval", "runs/x", "--num-epsodes", "3"], "did you mean --num-episodes?"),
        (["extend", "runs/x"], "Missing from jaxsoft extend: --total-timesteps"),
        (["tabular", "soft-q-lambda", "finite/Chain-5", "--lamda", "0.9"], "did you mean --lambda?"),
        ([*PENDULUM, "--agent.batch-size", "300", "--agent.replay-capacity", "200"], "batch_size is 300, more than"),
        ([*PENDULUM, "--num-envs", "300", "--agent.replay-capacity", "200"], "replay_capacity is 200, less than"),
        ([*PENDULUM, "--total-timesteps", "300"], "total_timesteps is 300, but the first update comes after 500"),
        (["list", "all"], "Unrecognized options: all"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    argv: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture
):
    out = tmp_path / "run"
    where = ["--out", str(out)] if argv[:1] == ["train"] else []
    assert main([*argv, *where]) == (1 if "too long" in message else 2)
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.startswith("jaxsoft: error: ")
    assert captured.err.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("--trace mine", "a function of your own is given in Python: jaxsoft.make_train(…, trace=…)"),
        ("--network Mine", "give it in Python, jaxsoft.make_train(…, network=…)"),
        ("--sweep trace=retrace,mine", "trace is 'mine'; it must be one of: tree_backup"),
        ("--sweep network=none,Mine", "network is 'Mine'; it must be none, or in Python a Flax module"),
        ("--reference mine", "a function of your own is given in Python: jaxsoft.make_train(…, reference=…)"),
    ],
)
def test_what_only_python_can_give_is_refused_with_the_way_in(
    written: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["--out", str(tmp_path / "run")]
    assert main(["train", "soft_q", "gymnax/CartPole-v1", *written.split(), *run]) == 2
    assert told in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
