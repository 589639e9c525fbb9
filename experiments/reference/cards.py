"""How many kernels the missing entries' turns have on an H100, which need not be there.

    PYTHONPATH=.accelerators python -m experiments.reference.cards

It compiles the turn of every missing entry that has no count yet, writes kernels.json after each, and at the end the
pages. `make check-accelerators` installs the compiler.
"""

from __future__ import annotations

import json

import jax

from experiments.reference import page, records
from experiments.reference.tasks import ENTRIES, Entry
from jaxsoft.bench.cases import training
from jaxsoft.bench.chips import H100, chips
from jaxsoft.bench.compiled import turn_cost
from jaxsoft.bench.measure import trace
from jaxsoft.errors import InputError


def count(entry: Entry) -> int:
    """Kernels of a turn of all of an entry's seeds.

    Raises:
        InputError: the compiler is not installed.
    """
    case = training({"agent": entry.agent, "env": entry.env_id, **entry.settings}, entry.num_seeds, chips(H100))
    return turn_cost(trace(case)[1].lower().compile().as_text() or "").num_kernels


def main() -> None:
    jax.config.update("jax_enable_compilation_cache", False)
    counts, measured = json.loads(page.KERNELS.read_text()), records.read()
    names = page.names_of(measured)
    for entry in ENTRIES:
        if entry.name not in names and entry.name not in counts and not entry.library:
            counts[entry.name] = count(entry)
            page.KERNELS.write_text(json.dumps(dict(sorted(counts.items())), indent=1) + "\n")
            print(f"{entry.name}: {counts[entry.name]:,} kernels a turn", flush=True)
            jax.clear_caches()
    page.write(measured)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(f"error: {error}") from None
