"""FBNet: blocks, spaces of architectures, tables of latencies, and the search by gradients.

Source: Wu et al. 2019, FBNet, CVPR, arXiv 1812.03443.
"""

from problems.documented.fbnet.blocks import (
    PAPER_BLOCKS,
    SKIP,
    BlockType,
    FBNetBlock,
    channel_shuffle,
    make_block,
)
from problems.documented.fbnet.latency import LatencyTable, counted_table, measured_table
from problems.documented.fbnet.macro import (
    SPACES,
    Architecture,
    FBNet,
    Layer,
    MacroSpace,
    macro_space,
    paper_space,
    small_space,
    three_stage_space,
)
from problems.documented.fbnet.search import (
    SearchConfig,
    SearchThenTrain,
    derive,
    latency_loss,
    search,
)
from problems.documented.fbnet.supernet import (
    SuperNet,
    gumbel_noise,
    relaxed_mask,
    straight_through,
)

__all__ = [
    "PAPER_BLOCKS",
    "SKIP",
    "SPACES",
    "Architecture",
    "BlockType",
    "FBNet",
    "FBNetBlock",
    "LatencyTable",
    "Layer",
    "MacroSpace",
    "SearchConfig",
    "SearchThenTrain",
    "SuperNet",
    "channel_shuffle",
    "counted_table",
    "derive",
    "gumbel_noise",
    "latency_loss",
    "macro_space",
    "make_block",
    "measured_table",
    "paper_space",
    "relaxed_mask",
    "search",
    "small_space",
    "straight_through",
    "three_stage_space",
]
