"""`jaxsoft export RUN`: writes a trained policy to a file that needs no jaxsoft."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from jaxsoft.cli.options import parse_options
from jaxsoft.errors import InputError, printable
from jaxsoft.fleet.grid import parse_grid
from jaxsoft.runs.config import read_config
from jaxsoft.runs.export import export_policy


@dataclass(frozen=True)
class ExportOptions:
    """Write a trained policy to a file, its parameters inside, and its description to a .json file beside it."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Run directory."""
    seed: int | None = None
    """Seed of the run; by default its first."""
    format: str = "stablehlo"
    """File format: stablehlo, for jax.export.deserialize, or onnx (pip install 'jaxsoft[onnx]')."""
    out: Path | None = None
    """File to write; by default policy.stablehlo or policy.onnx in the run directory."""
    cell: Annotated[tuple[str, ...], tyro.conf.arg(metavar="SETTING=VALUE ...")] = ()
    """Settings that name one cell of a sweep, for example learning-rate=1e-3."""
    stochastic: bool = False
    """Draw actions: the function takes a key, uint32 [2], before the observations. By default it is the mode."""
    allow_failed: bool = False
    """Take a failed seed's policy from before it failed."""


def export_command(argv: list[str]) -> None:
    """`jaxsoft export RUN [--seed N] [--format stablehlo|onnx] [--cell SETTING=VALUE ...] [--out FILE]`."""
    options = parse_options(ExportOptions, "jaxsoft export", argv, config=(tyro.conf.FlagCreatePairsOff,))
    cell = parse_grid(read_config(options.run).train.kind, options.cell)
    for name, values in cell.items():
        if len(values) > 1:
            raise InputError(f"cell gives {name} {len(values)} values; it must name one cell")
    file = export_policy(
        options.run,
        options.out,
        seed=options.seed,
        format=options.format,
        deterministic=not options.stochastic,
        allow_failed=options.allow_failed,
        **{name: value for name, (value,) in cell.items()},
    )
    print(printable(file))
    print(printable(file.with_suffix(".json")))
