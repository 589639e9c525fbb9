"""Intervals that were typed into an experiment's words are those of its committed numbers."""

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

EXPERIMENTS = Path(__file__).parents[2] / "experiments"

TYPED = re.compile(r"(−?[\d,.]+)\s\[(−?[\d,.]+),\s(−?[\d,.]+)\]")


@pytest.fixture(scope="module", autouse=True)
def scripts() -> Any:
    """The experiments, which stand in no package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXPERIMENTS)
        yield


def intervals(stem: str) -> list[tuple[float, float, float]]:
    """All that an experiment has measured."""
    module = importlib.import_module(stem)
    if stem == "deep_soft_q":
        return [x for cell in module.read() for x in (cell.final, cell.average)]
    if stem == "lambda_on_cartpole":
        return [(x.iqm, x.low, x.high) for x in module.read_rows(module.ROWS, module.Cell)]
    curves = importlib.import_module("curves")
    measured = curves.read(EXPERIMENTS / f"{stem}.csv").values()
    return [score(curve) for curve in measured for score in (curves.final, curves.average)]


@pytest.mark.parametrize("stem", ["deep_soft_q", "lambda_on_cartpole", "sac_versions"])
def test_typed_intervals_are_measured(stem: str) -> None:
    known, words = intervals(stem), importlib.import_module(stem).ANSWER
    typed = TYPED.findall(words)
    assert typed
    assert words.strip() in (EXPERIMENTS / f"{stem}.md").read_text()
    for numbers in typed:
        ends = [float(x.replace("−", "-").replace(",", "")) for x in numbers]
        digits = [len(x.partition(".")[2]) for x in numbers]
        near = [
            all(abs(x - end) <= 0.51 * 10.0**-n for x, end, n in zip(own, ends, digits, strict=True)) for own in known
        ]
        assert any(near), numbers
