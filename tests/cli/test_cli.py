"""The commands: what they print, and one clear line for what they cannot do."""

import errno
import functools
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import pytest
from matplotlib.cbook import is_math_text
from matplotlib.figure import Figure
from matplotlib.text import Text

from jaxsoft import cli
from jaxsoft.cli import main
from jaxsoft.cli.console import PlainConsole, make_console
from jaxsoft.envs import env_spec

PENDULUM = ["train", "sac", "gymnax/Pendulum-v1"]
SMALL = "--total-timesteps 400 --eval-every 200 --eval-episodes 2 --hidden-sizes 8 --batch-size 8 --learning-starts 100"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "run"
    assert main(["train", "sac", "gymnax/Pendulum-v1", "--num-seeds", "2", *SMALL.split(), "--out", str(path)]) == 0
    return path


def test_train_prints_a_table_and_names_its_files(tmp_path: Path, capsys: pytest.CaptureFixture):
    out = tmp_path / "m[" / "b][bold]:smile:\x1b[31m$_{$"
    assert main(["train", "sac", "gymnax/Pendulum-v1", *SMALL.split(), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    shown = str(out).replace("\x1b", "\\x1b")
    assert f"run directory   {shown}   (jaxsoft eval {shown})\n" in printed
    assert "\x1b" not in printed
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
    commands = [[command, "--help"] for command in cli.COMMANDS]
    for argv in ([], ["--help"], ["train"], *commands, ["train", "--resume", "--help"], ["--version"]):
        assert main(argv) == 0
        assert "jaxsoft" in capsys.readouterr().out
    assert main(["train", "sac", "--help"]) == 0
    assert "--agent.learning-rate" in capsys.readouterr().out


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
        ("plot", "metrics.parquet", "metrics.parquet is cut short, was changed"),
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


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_process_whose_output_is_refused_tells_no_more_than_needed():
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "jaxsoft", "train", "sac", "--help"]
    with os.fdopen(write, "w") as unread, open("/dev/full", "w") as full:
        ends = [subprocess.run(command, stdout=x, stderr=subprocess.PIPE, text=True) for x in (unread, full)]
    assert [end.returncode for end in ends] == [141, 1]
    assert [end.stderr for end in ends] == ["", NOT_WRITTEN]


NOT_WRITTEN = "jaxsoft: error: standard output cannot be written: No space left on device\n"


class Refusing(io.StringIO):
    """Standard output that takes no text: at once, or, buffered, when it is flushed."""

    def __init__(self, reason: int, *, buffered: bool) -> None:
        super().__init__()
        self._error, self._buffered = OSError(reason, os.strerror(reason)), buffered

    def write(self, text: str) -> int:
        """Takes text into the buffer, if there is one."""
        if not self._buffered:
            raise self._error
        return len(text)

    def flush(self) -> None:
        """Finds that it cannot be written."""
        raise self._error


@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize(
    "command", ["list", "--help", "tabular --help", "plot RUN", "eval RUN --num-episodes 1 --json"]
)
def test_output_that_is_refused(
    command: str, buffered: bool, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    for reason, status, told in ((errno.EPIPE, 141, ""), (errno.ENOSPC, 1, NOT_WRITTEN)):
        with monkeypatch.context() as refused:
            refused.setattr(sys, "stdout", Refusing(reason, buffered=buffered))
            assert main(command.replace("RUN", str(run)).split()) == status
        assert capsys.readouterr().err == told


def test_output_that_is_closed_or_not_utf_8(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    with monkeypatch.context() as closed:
        closed.setattr(sys, "stdout", None)
        assert main(["list"]) == 0
    written = io.BytesIO()
    with monkeypatch.context() as old:
        old.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
        old.setattr(sys, "stderr", io.TextIOWrapper(written, encoding="ascii"))
        assert main(["list"]) == 0
        assert main(["plot", "×é"]) == 2
        sys.stderr.flush()
        printed = written.getvalue().decode()
    assert "| gymnax/Asterix-MinAtar          | 10 x 10 x 4 " in printed
    assert r"jaxsoft: error: x\xe9 is not a run directory" in printed


def test_what_the_system_refuses_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
):
    def run(error: BaseException) -> int:
        def command(argv: list[str]) -> None:
            raise error

        monkeypatch.setitem(cli.COMMANDS, "list", command)
        return main(["list"])

    library = "libarrow.so.2300: failed to map segment from shared object"
    for error in (MemoryError("std::bad_alloc"), ImportError(library)):
        assert run(error) == 1
        assert capsys.readouterr().err == "jaxsoft: error: the system gives this process no more memory\n"
    assert run(PermissionError(13, "Permission denied", "runs/\x1b[31m")) == 1
    assert capsys.readouterr().err == "jaxsoft: error: runs/\\x1b[31m: Permission denied\n"
    for error in (ImportError("no module named x"), OSError(5, "a fault of the program")):
        with pytest.raises(type(error)):
            run(error)


def test_where_compiled_programs_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def folder(**environment: str) -> str | None:
        settings: dict[str, Any] = {}
        with monkeypatch.context() as given:
            given.setattr(jax.config, "update", settings.__setitem__)
            given.delenv("JAX_COMPILATION_CACHE_DIR")
            for name in ("HOME", "XDG_CACHE_HOME"):
                given.delenv(name, raising=False)
            for name, value in environment.items():
                given.setenv(name, value)
            if not environment:
                given.setattr(Path, "home", _no_home)
            cli._cache_compiled_programs()
        return settings.get("jax_compilation_cache_dir")

    home = str(tmp_path)
    assert folder(HOME=home) == f"{home}/.cache/jaxsoft"
    assert folder(HOME=home, XDG_CACHE_HOME="") == f"{home}/.cache/jaxsoft"
    assert folder(HOME=home, XDG_CACHE_HOME="cache") == f"{home}/.cache/jaxsoft"
    assert folder(HOME=home, XDG_CACHE_HOME=f"{home}/other") == f"{home}/other/jaxsoft"
    assert folder(HOME="/dev/null") is None
    assert folder() is None


def _no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_names_of_runs_are_no_formulas_in_pictures(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    names = ["e$x_{$", "e[bold]x", "t\x1b[31m"]
    for name in names:
        config = json.loads((shutil.copytree(run, tmp_path / name) / "config.json").read_text())
        config["env"] = "gymnax/$\x1b^{$"
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    monkeypatch.chdir(tmp_path)
    assert main(["plot", *names, "--out", "e$x_{$.png"]) == 0
    assert capsys.readouterr().out == "e$x_{$.png\n"
    drawn[0].canvas.draw()  # a formula that is none would end here
    shown = [text.get_text() for text in drawn[0].findobj(Text)]  # pyright: ignore[reportAttributeAccessIssue]
    words = [text.replace(r"\$", "$") for text in shown if not is_math_text(text)]
    assert [f"sac, 2 seeds ({name})" for name in ("e$x_{$", "e[bold]x", "t\\x1b[31m")] == [
        text for text in words if text.startswith("sac")
    ]
    assert "gymnax/$\\x1b^{$" in words
    assert main(["eval", names[0]]) == 2
    assert r"unknown environment 'gymnax/$\x1b^{$'" in capsys.readouterr().err


def test_what_is_printed_is_text(capsys: pytest.CaptureFixture):
    console = make_console()
    console.print("[bold]x[/bold] :smile: \x1b[31m \u202e \udcff [/b]")
    assert capsys.readouterr().out == "[bold]x[/bold] :smile: \\x1b[31m \\u202e \\udcff [/b]\n"


def test_environments_are_whole_words_on_every_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.setattr("jaxsoft.cli.list.env_spec", functools.cache(env_spec))
    for width in range(40, 201, 7):
        monkeypatch.setattr("jaxsoft.cli.list.make_console", lambda width=width: PlainConsole(width=width))
        assert main(["list"]) == 0
        printed = capsys.readouterr().out
        assert "…" not in printed
        assert all(len(line) <= width for line in printed.splitlines())
        for word in ("gymnax/MountainCarContinuous-v0", "mjx/InvertedDoublePendulum-v5", "soft_q_stream", "2,500"):
            assert word in printed
