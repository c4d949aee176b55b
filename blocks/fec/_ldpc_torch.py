"""The LDPC decoder as a function of torch tensors, on any device: what `blocks.fec._ldpc.decode` does on a CPU.

In whole numbers, as there: results are the same to the last bit. All blocks are decoded at once; those that are done
drop out.
"""

from __future__ import annotations

import numpy as np
import torch

from blocks.fec._ldpc import LARGEST_MESSAGE, OFFSET

LARGEST = 127


def _places(first: np.ndarray, column: np.ndarray, shift: np.ndarray, rows: int, size: int) -> list[np.ndarray]:
    """Where the bits of each row's checks lie in a code word: int64 [edges of the row Z], by row."""
    turned = column[:, None].astype(np.int64) * size + (shift[:, None] + np.arange(size)) % size
    return [turned[first[row] : first[row + 1]].ravel() for row in range(rows)]


def _satisfied(a: torch.Tensor, places: list[torch.Tensor], size: int) -> torch.Tensor:
    """Whether the signs of LLRs [columns Z, blocks] fulfil every check of every row: bool [blocks]."""
    signs = (a < 0).to(torch.int8)
    wrong = [
        signs[place].view(len(place) // size, size, a.shape[1]).sum(0, dtype=torch.int8).bitwise_and(1).amax(0)
        for place in places
    ]
    return torch.stack(wrong).amax(0) == 0


def _update(a: torch.Tensor, place: torch.Tensor, messages: torch.Tensor) -> None:
    """Take a row's checks into account: its messages int16 [edges, Z, blocks], and LLRs a int16 [columns Z, blocks]."""
    values = (a[place].view_as(messages) - messages).clamp(-LARGEST, LARGEST)
    sizes = values.abs()
    least, at = sizes.min(0, keepdim=True)
    second = sizes.scatter(0, at, LARGEST).amin(0, keepdim=True)
    sizes = (torch.where(sizes == least, second, least).clamp(max=LARGEST_MESSAGE) - OFFSET).clamp(min=0)
    negative = values < 0
    odd = negative.sum(0, keepdim=True, dtype=torch.int8).bitwise_and(1) == 1
    messages.copy_(torch.where(negative ^ odd, -sizes, sizes))
    a[place] = (values + messages).clamp(-LARGEST, LARGEST).flatten(0, 1)


def decode(
    llrs: torch.Tensor,
    first: np.ndarray,
    column: np.ndarray,
    shift: np.ndarray,
    rows: int,
    size: int,
    iterations: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Decode LLRs ln p(0)/p(1) in quarters, int8 [blocks, columns Z], by layered offset min-sum.

    The graph is the first edge of each row, and column and shift of every edge; its first `rows` rows count, at the
    lifting size Z = `size`. Returns LLRs int8 [blocks, columns Z], whether all checks hold, bool [blocks], and the
    iterations taken, int32 [blocks].
    """
    places = [torch.from_numpy(place).to(llrs.device) for place in _places(first, column, shift, rows, size)]
    a = llrs.T.to(torch.int16).contiguous()  # a bit of all blocks side by side
    messages = [a.new_zeros(len(place) // size, size, a.shape[1]) for place in places]
    out = llrs.clone()
    passed = torch.zeros(len(llrs), dtype=torch.bool, device=llrs.device)
    taken = torch.zeros(len(llrs), dtype=torch.int32, device=llrs.device)
    left = torch.arange(len(llrs), device=llrs.device)  # blocks that are at work
    for iteration in range(iterations + 1):
        ok = _satisfied(a, places, size)
        done = ok if iteration < iterations else torch.ones_like(ok)
        out[left[done]] = a[:, done].T.to(torch.int8)
        passed[left], taken[left] = ok, iteration
        if done.all():
            break
        if done.any():
            a, left = a[:, ~done], left[~done]
            messages = [each[..., ~done] for each in messages]
        for place, of_row in zip(places, messages, strict=True):
            _update(a, place, of_row)
    return out, passed, taken
