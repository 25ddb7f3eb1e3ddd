"""The frames that no span reaches: deleted, appended or compressed (paper, section 3: tail options).

Deleting is doing nothing. The other two turn the tail into pictures small enough that the coarsest kernel sees each of
their pixels as one token.
"""

from __future__ import annotations

from einops import reduce, repeat
from jaxtyping import Float
from torch import Tensor, nn

from longtake.schedule import Kernel

__all__ = ["appended", "compressed"]

POOL = Kernel(1, 32, 32)  # latent pixels of a tail frame that become one token (paper, naming section)


def _enlarged(pixels: Float[Tensor, "b c t h w"], kernel: Kernel) -> Float[Tensor, "b c t2 h2 w2"]:
    return repeat(pixels, "b c t h w -> b c (t kt) (h kh) (w kw)", kt=kernel.t, kh=kernel.h, kw=kernel.w)


def appended(tail: Float[Tensor, "b c t h w"], kernel: Kernel) -> Float[Tensor, "b c t2 h2 w2"]:
    """Each frame averaged over 32 x 32 latent pixels, each average as large as `kernel`: a token apiece.

    >>> import torch
    >>> appended(torch.zeros(1, 16, 5, 60, 104), Kernel(4, 8, 8)).shape
    torch.Size([1, 16, 20, 16, 32])
    """
    h, w = tail.shape[3:]
    tail = nn.functional.pad(tail, (0, -w % POOL.w, 0, -h % POOL.h, 0, 0), mode="replicate")
    return _enlarged(nn.functional.avg_pool3d(tail, (POOL.t, POOL.h, POOL.w)), kernel)


def compressed(tail: Float[Tensor, "b c t h w"], kernel: Kernel) -> Float[Tensor, "b c t2 h2 w2"]:
    """The mean of all pixels of all frames, as large as `kernel`: one token for the whole tail.

    >>> import torch
    >>> compressed(torch.zeros(1, 16, 5, 60, 104), Kernel(4, 8, 8)).shape
    torch.Size([1, 16, 4, 8, 8])
    """
    return _enlarged(reduce(tail, "b c t h w -> b c 1 1 1", "mean"), kernel)
