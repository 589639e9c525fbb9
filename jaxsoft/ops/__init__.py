"""The mathematics: unbatched pure functions on arrays; the caller vmaps."""

from jaxsoft.ops.soft import temperature_loss

__all__ = ["temperature_loss"]
