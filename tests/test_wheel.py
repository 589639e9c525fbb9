"""The distributions hold what they must, and the wheel trains in an environment that has nothing else."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Builds the source distribution, and the wheel from it."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--outdir", folder, ROOT], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.mark.thorough
def test_the_distributions_hold_the_package_with_presets_and_types(wheel: Path) -> None:
    package = {path.relative_to(ROOT).as_posix() for path in (ROOT / "jaxsoft").rglob("*") if path.is_file()}
    package = {name for name in package if "__pycache__" not in name}
    assert {"jaxsoft/py.typed", "jaxsoft/training/presets/sac.toml"} <= package
    in_wheel = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in in_wheel if ".dist-info/" not in name} == package
    (source,) = wheel.parent.glob("*.tar.gz")
    top = source.name.removesuffix(".tar.gz")
    with tarfile.open(source) as archive:
        in_source = {name.removeprefix(f"{top}/") for name in archive.getnames()}
    assert package | {"pyproject.toml", "README.md", "LICENSE"} <= in_source


@pytest.mark.slow
def test_the_wheel_trains_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    """What the package imports, and nothing else, is what it declares."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = [python, "-I", "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", wheel]
    subprocess.run(install, check=True)
    isolated = {"env": {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}, "cwd": tmp_path, "check": True}
    train = "train sac gymnax/Pendulum-v1 --num-seeds 2 --total-timesteps 1000 --eval-every 1000 --out run".split()
    subprocess.run([tmp_path / "venv" / "bin" / "jaxsoft", *train], **isolated)
    subprocess.run([tmp_path / "venv" / "bin" / "jaxsoft", "eval", "run", "--num-episodes", "2"], **isolated)
    where = subprocess.run([python, "-c", "import jaxsoft; print(jaxsoft.__file__)"], **isolated, capture_output=True)
    assert Path(where.stdout.decode().strip()).is_relative_to(tmp_path / "venv")
    assert 'learning_rate": 0.001' in (tmp_path / "run" / "config.json").read_text()  # the preset's
