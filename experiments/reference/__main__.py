"""The reference results: trains what is missing, judges it, and writes tables, curves and pages of all.

    make reference                                     # until all is there: days on two cores
    make reference BUDGET=60                           # for an hour; the next call goes on, in the middle of a run, too
    python -m experiments.reference --only mujoco-sac  # entries with this in their name
    python -m experiments.reference --list             # what there is, what is missing, how long that takes

Ctrl-C saves, and the next call goes on. Entries that results.parquet has, with the settings that they have now, are not
trained again; remove the file to measure all anew.
"""

from __future__ import annotations

import argparse
import math
import signal
import time
from collections.abc import Callable
from pathlib import Path

import jaxsoft
from experiments.reference import page, records
from experiments.reference.tasks import ENTRIES, Entry
from jaxsoft.errors import InputError
from jaxsoft.runs.files import lock
from jaxsoft.runs.signals import catch_signals

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.reference",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--budget", type=float, default=math.inf, metavar="MINUTES", help="stop then; go on next time")
    parser.add_argument("--only", default="", metavar="TEXT", help="part of the names of entries")
    parser.add_argument("--runs", type=Path, default=Path("runs/reference"), help="where run directories are kept")
    parser.add_argument("--list", action="store_true", help="print what is there and what is missing")
    options = parser.parse_args()
    chosen = [entry for entry in ENTRIES if options.only in entry.name]
    if options.list:
        measured = page.names_of(records.read())
        for entry in chosen:
            print(f"{'done   ' if entry.name in measured else 'missing'} {entry.hours:5.2f} h  {entry.name}")
        return
    jaxsoft.use_all_cores()
    deadline = time.monotonic() + 60 * options.budget
    signals = [x for x in SIGNALS if x != signal.SIGHUP or signal.getsignal(x) != signal.SIG_IGN]  # nohup ignores it
    with lock(options.runs), catch_signals(signals) as request:
        measured = page.names_of(records.read())
        for entry in chosen:
            if entry.name not in measured and not train(
                entry, options.runs, lambda: request() or time.monotonic() > deadline
            ):
                break
        page.write(records.read())
    if request():
        raise SystemExit(request.status)


def train(entry: Entry, folder: Path, should_stop: Callable[[], bool]) -> bool:
    """Trains an entry to its end, judges it and says so; false if it was stopped."""
    if should_stop():
        return False
    print(f"{entry.name}: {entry.num_seeds} seeds, some {60 * entry.hours:.0f} minutes on two cores", flush=True)
    if not records.train(entry, folder, should_stop):
        return False
    records.add(list(records.judge(entry, folder)))
    print(f"  {page.final(records.read(), entry)}", flush=True)
    return True


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(str(error)) from None
