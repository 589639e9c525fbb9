"""Float64 results that the library has to reproduce, from `golden/`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np


def load(name: str) -> list[dict[str, Any]]:
    """The cases of one file, their numbers as float64 arrays; recorded steps stay lists of mixed types."""
    cases = json.loads((Path(__file__).parents[1] / "golden" / f"{name}.json").read_text())
    return [{field: _as_array(field, value) for field, value in case.items()} for case in cases]


def _as_array(field: str, value: Any) -> Any:
    return np.asarray(value) if isinstance(value, list) and field != "steps" else value
