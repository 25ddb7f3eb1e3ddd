"""What every command that computes asks of the machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from longtake.pipeline import Runtime

__all__ = ["Machine"]


@dataclass(frozen=True, slots=True)
class Machine:
    """The options of every command that makes videos on this machine."""

    device: str = "auto"
    """cpu, cuda, ... or auto: a GPU where there is one."""
    profile: str = "auto"
    """Where the network's weights lie: auto is the first that fits; see longtake doctor."""
    attention: Literal[
        "auto",
        "native",
        "cudnn",
        "flash",
        "efficient",
        "math",
        "tiled",
        "sage",
        "flash-attn",
        "flash-attn-4",
        "xformers",
    ] = "auto"
    """The kernel of attention, one that longtake doctor lists; sage rounds to 8 bits, all others give the same."""
    compile: bool = False
    """Compile the network's blocks on a GPU: a minute of waiting, then quicker steps."""

    def runtime(self, device: str) -> Runtime:
        """How a model runs, on this process's device."""
        from longtake.pipeline import Runtime

        return Runtime(device, self.profile, self.attention, self.compile)
