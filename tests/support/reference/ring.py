"""A replay as a list of rows: what the ring on the device has to hold."""

from __future__ import annotations

from collections import deque
from typing import Any


class RingReference:
    """Rows in the order they were added, the oldest dropped once `num_rows` are held."""

    def __init__(self, num_rows: int) -> None:
        self.rows: deque[Any] = deque(maxlen=num_rows)

    def add(self, row: Any) -> None:
        self.rows.append(row)
