"""Contestants as processes that build once and then train once for each seed that they are sent."""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peer_environments import Installation, PeerError
from rounds import CONTESTANTS


class Process:
    """One contestant at one setting.

    Args:
        installation: with what it runs.
        script: of `contestants/`.
        settings: for its `make`.
        environment: more variables.
        log: where everything that it prints goes.
    """

    def __init__(
        self,
        installation: Installation,
        script: str,
        settings: Mapping[str, Any],
        environment: dict[str, str],
        log: Path,
    ) -> None:
        self._log = log
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | environment
        inherited["JAX_ENABLE_COMPILATION_CACHE"] = "false"
        if installation.path is not None:
            inherited["PYTHONPATH"] = installation.path
        self._answers: int | None
        self._answers, answers = os.pipe()
        inherited["ANSWERS"] = str(answers)
        with log.open("w") as printed:
            self._process = subprocess.Popen(
                [str(installation.python), str(CONTESTANTS / script), json.dumps(settings)],
                stdin=subprocess.PIPE,
                stdout=printed,
                stderr=printed,
                env=inherited,
                pass_fds=(answers,),
                cwd=CONTESTANTS,
            )
        os.close(answers)
        self._built: dict[str, Any] | None = None
        self._unread = b""

    def built(self, deadline: float) -> dict[str, Any]:
        """What it says once it is ready: `compile`, `versions`.

        Raises:
            PeerError: it failed or did not answer before the deadline, of `time.monotonic`.
        """
        if self._built is None:
            self._built = self._answer(deadline)
        return self._built

    def run(self, seed: int, deadline: float) -> dict[str, Any]:
        """One training: `steps_per_second`, `returns`.

        Raises:
            PeerError: as `built`.
        """
        self.built(deadline)
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{seed}\n".encode())
            self._process.stdin.flush()
        except OSError:
            self.close()
            raise PeerError(self._last_words()) from None
        return self._answer(deadline)

    def close(self) -> None:
        """Ends it."""
        self._process.kill()
        self._process.wait()
        if self._answers is not None:
            os.close(self._answers)
            self._answers = None

    def _answer(self, deadline: float) -> dict[str, Any]:
        assert self._answers is not None
        while b"\n" not in self._unread:
            left = max(deadline - time.monotonic(), 0)
            if not select.select([self._answers], [], [], left)[0]:
                self.close()
                raise PeerError("not done when time was up")
            read = os.read(self._answers, 1 << 16)
            if not read:
                self.close()
                raise PeerError(self._last_words())
            self._unread += read
        line, self._unread = self._unread.split(b"\n", 1)
        return json.loads(line)

    def _last_words(self) -> str:
        lines = [line.strip() for line in self._log.read_text(errors="replace").splitlines()]
        errors = [line for line in lines if "Error" in line or "RESOURCE_EXHAUSTED" in line] or lines
        return (errors[-1] if errors else f"ended with status {self._process.returncode}")[:300]
