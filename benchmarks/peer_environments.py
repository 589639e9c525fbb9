"""Where peers are installed: each into an environment of its own, since their requirements contradict each other."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import venv
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from rounds import ROOT

PUREJAXQL = "git+https://github.com/mttga/purejaxql@47af6d7"
STOIX = "git+https://github.com/EdanToledo/Stoix@8fff19c"


class PeerError(Exception):
    """A peer that does not install or does not run, in one line."""


class Peer(NamedTuple):
    """What pip installs for a peer.

    Attributes:
        requirements: pinned, into an environment with nothing else.
        alone: installed after these, without their requirements, which ask for versions that no longer exist.
        beside: what an interpreter that has jaxsoft needs in addition, without requirements: the wheels for `--wheels`.
    """

    requirements: tuple[str, ...]
    alone: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()


OLD_GYMNAX = "gymnax==0.0.9"
JAX = ("jax==0.10.2", "jaxlib==0.10.2", "flax==0.12.8", "optax==0.2.8", "chex==0.1.92")
REJAX = ("rejax==0.1.3", OLD_GYMNAX, "distrax==0.1.9")
HYDRA = ("hydra-core==1.3.2", "omegaconf==2.3.1", "antlr4-python3-runtime==4.9.3", "safetensors==0.8.0")
PEERS = {
    "rejax": Peer(
        (*JAX, *REJAX, "brax==0.14.2"),
        beside=(*REJAX, "tfp-nightly", "dm-tree==0.1.10", "decorator==5.3.1", "wrapt==2.5.2"),
    ),
    "purejaxql": Peer((*JAX, OLD_GYMNAX, "six==1.17.0", *HYDRA), (PUREJAXQL,), (PUREJAXQL, OLD_GYMNAX, *HYDRA)),
    "stable": Peer((*JAX, "torch==2.13.0", "stable-baselines3==2.9.2", "sbx-rl==0.28.0")),
    "brax": Peer(("brax==0.14.2", "jax==0.7.2", "jaxlib==0.7.2")),
    "skrl": Peer((*JAX, "skrl==2.1.1", "gymnasium==1.4.0")),
    "cleanrl": Peer(("cleanrl==1.2.0",)),
    "stoix": Peer((STOIX,)),
    "mava": Peer(("id-mava==0.1.3",)),
}


class Installation(NamedTuple):
    """How a peer is run.

    Attributes:
        python: the interpreter.
        path: its PYTHONPATH, or None for none.
    """

    python: Path
    path: str | None = None


def install(name: str, folder: Path, sources: Mapping[str, str], wheels: Path | None) -> Installation:
    """Installs a peer if it is not there.

    Args:
        name: of `PEERS`, or jaxsoft, which this interpreter has.
        folder: of all environments.
        sources: by name, what pip is given in place of a peer's repository: a folder or another address.
        wheels: a folder with one of wheels for each peer, made by `collect`; they are then put before what this
            interpreter has, without an environment and without a network.

    Raises:
        PeerError: pip failed.
    """
    inherited = os.environ.get("PYTHONPATH")
    if name == "jaxsoft":
        return Installation(Path(sys.executable), os.pathsep.join(filter(None, (str(ROOT), inherited))))
    peer = PEERS[name]
    if wheels is not None:
        target, files = folder / f"{name}-wheels", sorted(map(str, (wheels / name).glob("*.whl")))
        if not files:
            raise PeerError(f"no wheels in {wheels / name}")
        if _is_new(target, files):
            _pip(
                Path(sys.executable), "install", "--no-index", "--no-deps", "--upgrade", "--target", str(target), *files
            )
            _mark(target, files)
        return Installation(Path(sys.executable), os.pathsep.join(filter(None, (str(target), inherited))))
    target, alone = folder / name, _with_source(peer.alone, name, sources)
    python, wanted = target / "bin" / "python", [*_with_source(peer.requirements, name, sources), *alone]
    if _is_new(target, wanted):
        print(f"installing {', '.join(wanted)} …", flush=True)
        venv.create(target, clear=True, with_pip=True)
        _pip(python, "install", *wanted[: len(peer.requirements)])
        if alone:
            _pip(python, "install", "--no-deps", *alone)
        _mark(target, wanted)
    return Installation(python)


def collect(folder: Path, sources: Mapping[str, str], version: str) -> None:
    """Puts the wheels that `install` takes into a folder, for Linux on x86-64 and a version of Python.

    Raises:
        PeerError: pip failed.
    """
    python = Path(sys.executable)
    platforms = [f"--platform=manylinux{tag}_x86_64" for tag in ("2014", "_2_17", "_2_26", "_2_27", "_2_28")]
    for name, peer in PEERS.items():
        where = str(folder / name)
        for each in peer.beside:
            wheel = partial(_pip, python, "wheel", "--no-deps", "-w", where, *_with_source((each,), name, sources))
            if each.startswith("git+"):
                wheel()
                continue
            try:
                of_python = ("--only-binary=:all:", "--python-version", version, *platforms)
                _pip(python, "download", "--no-deps", "-d", where, *of_python, each)
            except PeerError:  # only a source distribution, of Python alone
                wheel()
        if peer.beside:
            print(f"{name}: {', '.join(path.name for path in sorted((folder / name).glob('*.whl')))}")


def _with_source(requirements: tuple[str, ...], name: str, sources: Mapping[str, str]) -> list[str]:
    return [sources.get(name, each) if each.startswith("git+") else each for each in requirements]


def _is_new(target: Path, wanted: list[str]) -> bool:
    made = target / "installed.json"
    return not made.exists() or json.loads(made.read_text()) != wanted


def _mark(target: Path, wanted: list[str]) -> None:
    (target / "installed.json").write_text(json.dumps(wanted))


def _pip(python: Path, *arguments: str) -> None:
    command = [str(python), "-m", "pip", "--disable-pip-version-check", *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        is_out_of_reach = any("unable to access" in line or "fetch-pack" in line for line in done.stderr.splitlines())
        raise PeerError(
            "not tried: its repository was out of reach" if is_out_of_reach else f"pip: {cause(done.stderr)}"
        )


def cause(stderr: str) -> str:
    """Why pip failed, in one line."""
    lines = [line.strip() for line in stderr.splitlines() if re.search("error|fatal", line, re.IGNORECASE)]
    for line in lines:
        if missing := re.search(r"No matching distribution found for (\S+?)([=~]=)(\S+)", line):
            needs = re.search(re.escape(missing[3]) + r" (Requires-Python [^;\s]+)", stderr)
            return missing[0] + (f", {needs[1]}" if needs else "")
    fatal = [line for line in lines if line.startswith("fatal")]
    return (fatal or lines or ["no message"])[-1][:300]
