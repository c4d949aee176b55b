"""The LDPC decoder on a GPU, as a Triton kernel: what `blocks.fec._ldpc.decode` does on a CPU, to the last bit.

A program decodes one code word after another, a lane to every bit of a lifted column: its messages stay in the GPU's
cache, and a code word that comes right early makes room for the next.
"""

# mypy: ignore-errors
# (the types in here are Triton's)
from __future__ import annotations

import numpy as np
import torch
import triton
import triton.language as tl

from blocks.fec._ldpc import LARGEST_MESSAGE, OFFSET

PROGRAMS = 16  # of a multiprocessor
WIDTH = 2  # lanes of a thread


@triton.jit
def _rotated(shift, lane, size):
    """Place in a column of what lane `lane` reads of it."""
    place = lane + shift
    return tl.where(place >= size, place - size, place)


@triton.jit
def _satisfied(a, first, column, shift, rows, size, bits, lane):
    """Whether the signs of the LLRs at `a` fulfil every check, and none of the first `bits` is 0."""
    wrong = lane * 0
    for c in range(tl.cdiv(bits, size)):
        llr = tl.load(a + c * size + lane, mask=(lane < size) & (c * size + lane < bits), other=1)
        wrong = tl.where(llr == 0, -1, wrong)
    for row in range(rows):
        sign = lane * 0
        for edge in range(tl.load(first + row), tl.load(first + row + 1)):
            place = tl.load(column + edge) * size + _rotated(tl.load(shift + edge), lane, size)
            sign ^= tl.load(a + place, mask=lane < size, other=0).to(tl.int32)
        wrong |= sign
    return tl.min(wrong, 0) >= 0


@triton.jit
def _value(a, r, column, shift, edge, size, lane):
    """Where the LLRs of an edge lie, and what they are without its own messages."""
    place = tl.load(column + edge) * size + _rotated(tl.load(shift + edge), lane, size)
    llr = tl.load(a + place, mask=lane < size, other=0).to(tl.int32)
    message = tl.load(r + edge * size + lane, mask=lane < size, other=0).to(tl.int32)
    return place, tl.minimum(tl.maximum(llr - message, -127), 127)


@triton.jit
def _decode(
    llrs,
    messages,  # of each program: [edges, Z]
    first,
    column,
    shift,
    passed,
    taken,
    blocks,
    rows,
    columns,
    size,
    bits,
    iterations,
    largest: tl.constexpr,
    offset: tl.constexpr,
    lanes: tl.constexpr,
):
    lane = tl.arange(0, lanes)
    r = messages + tl.program_id(0).to(tl.int64) * tl.load(first + rows) * size
    for block in range(tl.program_id(0), blocks, tl.num_programs(0)):
        a = llrs + tl.cast(block, tl.int64) * columns * size
        for edge in range(tl.load(first + rows)):
            tl.store(r + edge * size + lane, (lane * 0).to(tl.int8), mask=lane < size)
        ok = _satisfied(a, first, column, shift, rows, size, bits, lane)
        iteration = 0
        while (iteration < iterations) & (ok == 0):
            for row in range(rows):
                begin, end = tl.load(first + row), tl.load(first + row + 1)
                least, second, sign = lane * 0 + largest, lane * 0 + largest, lane * 0
                for edge in range(begin, end):
                    _, value = _value(a, r, column, shift, edge, size, lane)
                    sign ^= value
                    second = tl.minimum(second, tl.maximum(least, tl.abs(value)))
                    least = tl.minimum(least, tl.abs(value))
                usual, other = tl.maximum(least - offset, 0), tl.maximum(second - offset, 0)
                for edge in range(begin, end):
                    place, value = _value(a, r, column, shift, edge, size, lane)
                    message = tl.where(tl.abs(value) == least, other, usual)
                    message = tl.where((sign ^ value) < 0, -message, message)
                    tl.store(r + edge * size + lane, message.to(tl.int8), mask=lane < size)
                    llr = tl.minimum(tl.maximum(value + message, -127), 127)
                    tl.store(a + place, llr.to(tl.int8), mask=lane < size)
                tl.debug_barrier()  # the next row reads what other lanes wrote
            iteration += 1
            ok = _satisfied(a, first, column, shift, rows, size, bits, lane)
        tl.store(passed + block, ok.to(tl.int8))
        tl.store(taken + block, iteration)


def decode(
    llrs: torch.Tensor,
    first: np.ndarray,
    column: np.ndarray,
    shift: np.ndarray,
    rows: int,
    size: int,
    bits: int,
    iterations: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Decode LLRs ln p(0)/p(1) in quarters, int8 [blocks, columns Z], by layered offset min-sum.

    The graph is the first edge of each row, and column and shift of every edge; its first `rows` rows count, at the
    lifting size Z = `size`. Returns LLRs int8 [blocks, columns Z]; whether all checks hold and something is known of
    each of the first `bits` bits, bool [blocks]; and the iterations taken, int32 [blocks].
    """
    blocks, device = len(llrs), llrs.device
    out = llrs.clone()
    passed = torch.empty(blocks, dtype=torch.int8, device=device)
    taken = torch.empty(blocks, dtype=torch.int32, device=device)
    if not blocks:
        return out, passed.bool(), taken
    processors = torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1
    programs = min(blocks, PROGRAMS * processors)
    messages = torch.empty(programs, int(first[rows]) * size, dtype=torch.int8, device=device)
    lanes = max(32, triton.next_power_of_2(size))
    _decode[(programs,)](
        out,
        messages,
        *(torch.from_numpy(each).to(device) for each in (first, column, shift)),
        passed,
        taken,
        blocks,
        rows,
        llrs.shape[1] // size,
        size,
        bits,
        iterations,
        LARGEST_MESSAGE,
        OFFSET,
        lanes,
        num_warps=max(1, lanes // WIDTH // 32),
        num_stages=1,
    )
    return out, passed.bool(), taken
