r"""One video on several devices: each has a part of the tokens, and where tokens meet, all of them for some heads.

    tokens 0     tokens 1      norms, projections, feed-forward
        |    \ /    |          queries, keys and values are traded: tokens for heads
    heads 0      heads 1       attention
        |    / \    |          and back
    tokens 0     tokens 1

That is Ulysses (arXiv 2309.14509). Every rank of the group is given the same and gives the whole velocity: the tokens
are divided before the first block and together again after the last, so that all around the blocks, the seams too, is
as it is on one device. No sum is split, only matrices have fewer rows: the result differs by the rounding of their
products. The parts differ by one token at most, nothing is padded.

diffusers' own context parallelism wants an even number of tokens, or tells the ranks their numbers anew at every
exchange; it has no plan for HunyuanVideo, knows some kernels only, and waits for each exchange before it begins the
next.
"""

from longtake.backbones.parallel.crew import Crew
from longtake.backbones.parallel.sharing import COMPILE_OPTIONS, Sharing, share_sequence

__all__ = ["COMPILE_OPTIONS", "Crew", "Sharing", "share_sequence"]
