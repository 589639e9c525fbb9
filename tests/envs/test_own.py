"""Environments of one's own by name, from a folder of its own, and by entry points."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageSequence
from support import point_mass
from support.probe_envs import counting

import jaxsoft
from jaxsoft import Env, check_env, load_policy, make_env, register_env
from jaxsoft.cli import main, supervisor
from jaxsoft.envs import names, own, register_suite
from jaxsoft.envs.suites import SUITES, Suite
from jaxsoft.errors import InputError
from jaxsoft.reports.video import Episode, check_film, film
from jaxsoft.runs.tables import read_returns

FILE = Path(point_mass.__file__)


def forget() -> None:
    """As in a new process: nothing is registered, and no module of one's own was imported."""
    for suite_name in own._MAKES:
        SUITES.pop(suite_name, None)
    own._MAKES.clear()
    own.find_installed.cache_clear()
    for name in [name for name in sys.modules if name.startswith(("imported_", "own_", "lab_"))]:
        del sys.modules[name]


@pytest.fixture(autouse=True)
def new_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    forget()
    yield
    forget()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copy(FILE, tmp_path / "own_envs.py")
    return tmp_path


SMALL = "--num-seeds 2 --hidden-sizes 4 --total-timesteps 40 --learning-starts 10 --batch-size 4 --eval-every 20"


def test_all_that_named_environments_have_ones_own_has(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def told() -> tuple[str, str]:
        out, err = capsys.readouterr()
        assert err.count("\n") <= 1
        return out, err

    own_code, train = ["--import", "own_envs.py"], ["train", "sac", "own/PointMass?mass=2", *SMALL.split()]
    assert main([*train, "--sweep", "learning-rate=1e-3,1e-2", "--out", "run", "--import=own_envs.py"]) == 0
    assert "sac in own/PointMass?mass=2" in told()[0]
    config = (folder / "run" / "config.json").read_text()
    assert json.loads(config)["env"] == "own/PointMass?mass=2"
    assert "own_envs" not in config  # the id, and never the code
    assert [cell.returns.shape[1] for cell in read_returns(folder / "run")] == [2, 2]
    assert main([*own_code, "eval", "run", "--num-episodes", "2", "--json"]) == 0
    assert told()[0]
    assert main([*own_code, "eval", "run", "--num-episodes", "2", "--video", "film.gif"]) == 0
    assert "film.gif: an episode of seed" in told()[0]
    assert main([*own_code, "extend", "run", "--total-timesteps", "60"]) == 0
    policy = load_policy("run", seed=1, learning_rate=1e-2)
    assert np.abs(policy(np.zeros(4, np.float32))).max() <= 1

    forget()
    said = "own/PointMass is not known; it was registered by code of your own: name that with --import FILE"
    told()
    for command in (["eval", "run"], ["train", "--resume", "run"], ["extend", "run", "--total-timesteps", "80"]):
        assert main(command) == 2
        assert said in told()[1]
    with pytest.raises(InputError, match=re.escape(said)):
        load_policy("run", learning_rate=1e-2)
    assert main(["plot", "run", "--out", "curve.png"]) == 0  # which needs no environment
    told()
    assert main(train) == 2
    assert "unknown environment 'own/PointMass?mass=2'" in (err := told()[1])
    assert "--import FILE brings in those of your own" in err


def test_a_name_is_made_listed_and_suggested() -> None:
    register_env("own/PointMass", point_mass.make)
    register_env("own/PointMass", point_mass.make)  # the same function: a file that is imported twice
    assert "own/PointMass" in names()
    env = make_env("own/PointMass?mass=2", max_episode_steps=7)
    assert env.spec.id == "own/PointMass?mass=2&max_episode_steps=7"
    assert env.spec.max_episode_steps == 7
    velocity = env.step(jax.random.key(0), (jnp.zeros(2), jnp.zeros(2)), jnp.ones(2))[1].obs[2:]
    np.testing.assert_allclose(velocity, 0.05)
    for env_id, message in (
        ("own/PointMass?mas=1", "own/PointMass has no parameter 'mas'; it has: mass, max_episode_steps; did you mean"),
        ("own/PointMas", "unknown environment 'own/PointMas'; did you mean own/PointMass?"),
    ):
        with pytest.raises(InputError, match=re.escape(message)):
            make_env(env_id)


@pytest.mark.parametrize(
    ("env_id", "make", "message"),
    [
        ("PointMass", counting, "the id is 'PointMass'; it must be two words with one slash between them, like own/"),
        ("own/Point/Mass", counting, "the id is 'own/Point/Mass'; it must be two words with one slash"),
        ("own/", counting, "the id is 'own/'; it must be two words"),
        ("own/Point?mass=1", counting, "the id is 'own/Point?mass=1'; it must be two words"),
        (3, counting, "the id is 3; it must be two words"),
        (
            "gymnax/PointMass",
            counting,
            "the suite's name is 'gymnax'; it must be letters, digits and any of _ . -, and",
        ),
        ("pgx/PointMass", counting, "the suite's name is 'pgx'; it must be letters, digits"),
        ("gymnasium/PointMass", counting, "the suite's name is 'gymnasium'; it must be letters"),
        ("own/PointMass", None, "make is None; it must be a function that returns an Env"),
        ("own/Taken", counting, "own/Taken is registered already, with another function; take another name"),
        ("house/New", counting, "house/New cannot be registered: house was registered with register_suite"),
    ],
)
def test_what_cannot_be_registered_is_refused_in_one_line(env_id: Any, make: Any, message: str) -> None:
    register_env("own/Taken", point_mass.make)
    register_suite(Suite("house", list, counting))
    try:
        with pytest.raises(InputError, match=re.escape(message)) as error:
            register_env(env_id, make)
    finally:
        del SUITES["house"]
    assert "\n" not in str(error.value)


def test_a_film_shows_the_pictures_that_an_environment_draws_of_its_states(tmp_path: Path) -> None:
    register_env("own/PointMass", point_mass.make)
    states = [(np.array(place, np.float32), np.zeros(2, np.float32)) for place in ([0, 0], [2, 1])]
    film(tmp_path / "film.gif", Episode(states, [0.0, 1.0]), "own/PointMass?mass=2")
    with Image.open(tmp_path / "film.gif") as picture:
        frames = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(picture)]
    centres = [np.argwhere((frame == (60, 80, 180)).all(-1)).mean(0) for frame in frames]
    np.testing.assert_allclose(centres, [(79.5, 79.5), (80 - 25 - 0.5, 80 + 50 - 0.5)])


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (None, "render returns NoneType None; it must return NumPy's uint8[height, width, 3]"),
        (np.zeros((8, 8), np.uint8), "render returns uint8[8, 8]; it must return"),
        (np.zeros((8, 8, 3)), "render returns float64[8, 8, 3]; it must return"),
        (jnp.zeros((8, 8, 3), jnp.uint8), "render returns ArrayImpl uint8[8, 8, 3]; it must return NumPy's"),
    ],
)
def test_what_is_no_picture_is_refused_before_an_episode_is_played(picture: Any, message: str, tmp_path: Path) -> None:
    register_env("own/Drawn", lambda: point_mass.make()._replace(render=lambda state: picture))
    with pytest.raises(InputError, match=re.escape(message)):
        check_film(tmp_path / "film.gif", "own/Drawn")
    with pytest.raises(InputError, match=re.escape("render takes (); it must be a function of (state)")):
        check_env(point_mass.make()._replace(render=lambda: picture))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: None, "what makes own/Bad must return an Env; its env is None"),
        (
            lambda: gymnax.make("Pendulum-v1"),
            "its env is gymnax's own Pendulum; it must be jaxsoft.from_gymnax(env, pa",
        ),
        (lambda size: counting(size), "own/Bad cannot be made: missing a required argument: 'size'"),
    ],
)
def test_what_makes_no_environment_is_told_so(make: Callable[..., Env], message: str) -> None:
    register_env("own/Bad", make)
    with pytest.raises(InputError, match=re.escape(message)):
        make_env("own/Bad")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "--import bad.py: there is no such file"),
        ("def f(:", "--import bad.py: line 1 of bad.py is not Python (invalid syntax)"),
        ("\n\nx = y", "--import bad.py: line 3 of bad.py: NameError: name 'y' is not defined"),
        ("import sys\nsys.exit(3)", "--import bad.py: line 2 of bad.py: SystemExit: 3"),
        (
            "import no_such_thing",
            "--import bad.py: line 1 of bad.py: ModuleNotFoundError: No module named 'no_such_thing'",
        ),
        ("import numpy\n\nnumpy.ones(-1)", "--import bad.py: line 3 of bad.py: ValueError: negative dimensions"),
        (
            "import jaxsoft\njaxsoft.register_env('gymnax/X', print)",
            "--import bad.py: line 2 of bad.py: the suite's name is 'gymnax'",
        ),
    ],
)
def test_what_cannot_be_imported_is_told_in_one_line(
    text: str | None, message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if text is not None:
        (folder / "bad.py").write_text(text)
    try:
        assert main(["--import", "bad.py", "list"]) == 2
    finally:
        sys.modules.pop("bad", None)
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"jaxsoft: error: {message}")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["list", "--import"], "--import is followed by ''; it must be a Python file or a module's name"),
        (["--import", "--json", "list"], "--import is followed by '--json'; it must be a Python file"),
        (["list", "--import", "own_nothing"], "--import own_nothing: there is no such module; a file's name ends with"),
        (["list", "--import", "own_envs.deeper"], "--import own_envs.deeper: there is no such module"),
    ],
)
def test_a_module_that_is_not_there_is_told(
    argv: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    assert f"jaxsoft: error: {message}" in capsys.readouterr().err


def test_files_and_modules_are_imported_once_whatever_they_are_called(folder: Path) -> None:
    (folder / "lab_counters.py").write_text(
        "import jaxsoft, own_envs\njaxsoft.register_env('lab/Point', own_envs.make)"
    )
    (folder / "json.py").write_text("import jaxsoft, own_envs\njaxsoft.register_env('lab/Json', own_envs.make)")
    argv = ["--version", "--import", "lab_counters", "--import", "./lab_counters.py", "--import=./json.py"]
    rest, named = importlib.import_module("jaxsoft.cli.imports").split_imports(argv)
    assert rest == ["--version"]
    for _ in range(2):
        importlib.import_module("jaxsoft.cli.imports").import_all(named)
    assert {"lab/Point", "lab/Json", "own/PointMass"} <= set(names())
    assert sys.modules["json"] is json


def test_a_process_of_a_distributed_run_hands_them_on_to_its_child(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []

    class Child:
        def __init__(self, command: list[str], env: dict[str, str]) -> None:
            commands.append(command)

        def wait(self) -> int:
            return 0

    monkeypatch.setattr(supervisor.subprocess, "Popen", Child)
    monkeypatch.setattr(supervisor.signal, "signal", lambda number, action: None)
    assert main(["--import", "own_envs.py", "train", "--resume", "run", "--distributed"]) == 0
    assert commands[0][3:] == ["--import=own_envs.py", "train", "--resume", "run", "--distributed"]


def test_a_module_that_is_imported_again_registers_its_environments_again(folder: Path) -> None:
    sys.path.insert(0, str(folder))
    own_envs = importlib.import_module("own_envs")
    before = own._MAKES["own"]["PointMass"]
    importlib.reload(own_envs)
    assert own._MAKES["own"]["PointMass"] is own_envs.make is not before


def chain(length: int) -> Callable[[], Env]:
    def make() -> Env:
        return make_env(f"finite/Chain-{length}")

    return make


def test_another_function_without_a_name_of_its_own_is_refused() -> None:
    for _ in range(2):
        register_env("own/Cell", lambda: make_env("finite/Chain-5"))
    register_env("own/Closure", chain(5))
    for env_id, make in (("own/Cell", lambda: make_env("finite/Chain-20")), ("own/Closure", chain(20))):
        with pytest.raises(InputError, match=f"{env_id} is registered already, with another function"):
            register_env(env_id, make)


def test_what_fails_when_it_is_made_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    register_env("own/Broken", lambda size=0: 1 / size)  # type: ignore[arg-type, return-value]
    with pytest.raises(InputError, match=r"own/Broken cannot be made: ZeroDivisionError: .* \(line \d+ of test_own.py"):
        make_env("own/Broken")
    register_env("own/Gone", lambda: json.loads("{"))
    with pytest.raises(InputError, match=r"\(line \d+ of test_own.py\)"):  # and not of json's
        make_env("own/Gone")
    assert main(["list"]) == 0
    assert re.search(r"own/Broken *│ cannot be made", capsys.readouterr().out)


def test_installed_packages_name_theirs_in_entry_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "lab_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lab-package\nVersion: 1.0\n")
    entries = ["lab/PointMass = lab_package:make", "lab/Broken = lab_package:nothing", "mjx/Mine = lab_package:make"]
    (info / "entry_points.txt").write_text("\n".join(["[jaxsoft.envs]", *entries]))
    shutil.copy(FILE, tmp_path / "lab_package.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.warns(UserWarning, match="the entry point 'mjx/Mine' is passed over: the suite's name is 'mjx'"):
        assert {"lab/PointMass", "lab/Broken"} <= set(names())
    assert "lab_package" not in sys.modules
    assert make_env("lab/PointMass?max_episode_steps=5").spec.max_episode_steps == 5
    assert "lab_package" in sys.modules
    with pytest.raises(InputError, match=r"lab/Broken cannot be imported from lab_package:nothing \(AttributeError"):
        make_env("lab/Broken")
    register_env("lab/PointMass", counting)  # what a call says goes before what a package does
    assert "lab/PointMass" in names()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_guide_builds_this_environment_and_takes_instances() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "own_environments.md").read_text()
    (file,) = re.findall(r'```python title="point_mass.py"\n(.*?)```', guide, re.DOTALL)
    _, instances = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    assert file == FILE.read_text()
    check_env(point_mass.make(), thorough=True)
    made: dict[str, Any] = {}
    exec(instances, made)
    ids = ("gymnax/Pendulum-v1?g=5.0", "brax/hopper?backend=generalized")
    for instance, env_id in zip((made["pendulum"], made["hopper"]), ids, strict=True):
        assert (instance.spec.id, instance.spec.obs_shape) == (env_id, make_env(env_id).spec.obs_shape)


def test_public_names_are_those_of_the_top_level() -> None:
    wanted = "Env EnvSpec Box Discrete make_time_step check_env register_env from_gymnax from_brax".split()
    assert set(wanted) <= set(jaxsoft.__all__)
    assert all(getattr(jaxsoft, name).__doc__ for name in wanted)
