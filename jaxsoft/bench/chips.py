"""Chips that are not there: XLA compiles a program for an H100 or a TPU on any machine.

The compilers are packages: `jax-cuda13-plugin` and `jax-cuda13-pjrt` of jax's version for the H100, `libtpu` for TPUs.
"""

from __future__ import annotations

import os
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import jax
from jax.experimental import topologies

from jaxsoft.errors import InputError

H100 = "h100"

QUIET_TPU = {"TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
"""Settings that keep libtpu from asking the network for TPUs, and from being the only one on this machine."""


def compilers() -> list[str]:
    """Requirements of the compilers that go with this version of jax: what `python -m jaxsoft.bench.chips` prints."""
    tpu = next(one.partition(";")[0].strip() for one in requires("jax") or () if one.startswith("libtpu"))
    return [f"jax-cuda13-{part}=={jax.__version__}" for part in ("plugin", "pjrt")] + [tpu]


def chips(name: str) -> list[Any]:
    """Devices that programs can be compiled for, and not run on.

    Args:
        name: `h100` for one NVIDIA H100 (80 GB HBM3); or a topology of TPUs as libtpu names it, for example `v5e:2x2`.

    Raises:
        InputError: the compiler is not installed, or does not know the topology.
    """
    try:
        if name == H100:
            config = Path(__file__).with_name("h100.txtpb").read_text()
            described = {"platform": "cuda", "topology_name": "", "topology": "1x1x1", "target_config": config}
        else:
            for variable, value in QUIET_TPU.items():
                os.environ.setdefault(variable, value)
            described = {"platform": "tpu", "topology_name": name}
        return list(topologies.get_topology_desc(**described).devices)
    except (RuntimeError, ValueError, NotImplementedError) as error:
        packages = "jax-cuda13-plugin and jax-cuda13-pjrt" if name == H100 else "libtpu"
        message = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"no compiler for the chip {name!r} here ({message}): install {packages} beside jax {jax.__version__}"
        ) from error


if __name__ == "__main__":
    print(*compilers())
