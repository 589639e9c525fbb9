"""Stand-ins for the plotting libraries that gymnax imports and hardly ever needs."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import jax

_ONLY_FOR_RENDERING = ("matplotlib", "matplotlib.colors", "matplotlib.pyplot", "seaborn")


class _Deferred(ModuleType):
    """Stands for a module until one of its attributes is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or sys.modules.get(self.__name__) is self:
            raise AttributeError(name)
        return getattr(importlib.import_module(self.__name__), name)


def import_gymnax() -> ModuleType:
    """Imports gymnax without its plotting libraries, which would double the time a command takes to start.

    gymnax's modules hold stand-ins for them, which import the real ones when a renderer first needs them. A gymnax that
    needs more of them to be imported gets the real ones.
    """
    if "gymnax" not in sys.modules:
        with contextlib.suppress(ImportError, AttributeError), stand_ins(_ONLY_FOR_RENDERING), jax.enable_x64(False):
            importlib.import_module("gymnax")
    return importlib.import_module("gymnax")


@contextlib.contextmanager
def stand_ins(names: Sequence[str]) -> Iterator[None]:
    """Imports meanwhile find stand-ins for these modules, where they have not been imported before."""
    modules = {name: _Deferred(name) for name in names if name not in sys.modules}
    for name, module in modules.items():
        parent, _, child = name.rpartition(".")
        if parent in modules:
            setattr(modules[parent], child, module)
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in modules:
            del sys.modules[name]
