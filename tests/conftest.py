"""One torch thread a test process: the suite runs several, and small tensors gain nothing."""

import torch

torch.set_num_threads(1)
