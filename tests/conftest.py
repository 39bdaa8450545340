import pytest
import torch

# Small tensors: threads cost more than they bring, and sums are the same on every machine.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
