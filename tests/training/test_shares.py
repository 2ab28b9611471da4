"""What each process of a training computes of a batch."""

from __future__ import annotations

import torch

from calo_train.families.contracts import PartInput
from calo_train.nn.distillation import DistillationInput
from calo_train.training.batches import share_of


def test_rows_of_a_shower_stay_together_and_none_is_lost() -> None:
    """Five showers of three rows over two processes, with all that a student learns by."""
    shower = torch.arange(5).repeat_interleave(3)
    row = torch.arange(15)
    columns = torch.stack([shower, row], dim=1)
    whole = DistillationInput(columns, columns + 100, columns + 200, columns + 300, 3)
    shares = [share_of(whole, rank, 2) for rank in range(2)]
    assert [share.features[:, 0].unique().tolist() for share in shares] == [[0, 2, 4], [1, 3]]
    assert sorted(torch.cat([share.features for share in shares])[:, 1].tolist()) == row.tolist()
    for share in shares:
        assert share.rows_per_shower == 3
        assert share.context is not None
        assert share.base_context is not None
        assert torch.equal(share.context, share.features + 100)
        assert torch.equal(share.base_noise, share.features + 200)
        assert torch.equal(share.base_context, share.features + 300)


def test_an_input_without_context_is_shared_too() -> None:
    """One row a shower; a last batch smaller than the number of processes leaves one empty."""
    whole = PartInput(torch.ones(1, 4), None)
    assert [len(share_of(whole, rank, 2).features) for rank in range(2)] == [1, 0]
    assert share_of(whole, 0, 2).context is None
