"""Random numbers that can be asked for at any place: noise, fades and bits addressed by (key, stream, frame, item).

The generator is Philox4x32-10 (J. K. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): a keyed
bijection of a 128-bit counter, here (item, frame, stream). What it gives for an item depends neither on how a
stream is cut into packets nor on where a block runs, to the last bit. Frame numbers count modulo 2^32.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np

from blocks.arrays import array

# Streams of one key: what the numbers are drawn for.
NOISE, FADES, BITS, FLIPS, PATHS = range(5)
SCATTERERS = 64  # paths of a fading process
DENSE = 32  # places at which a period of the Doppler frequency is worked out; between them it is interpolated


def kernels() -> ModuleType:
    """Return the compiled kernels; the first call in a process loads them, the first on a machine compiles them."""
    from blocks.phy import _noise

    return _noise


def philox(counter: tuple[int, int, int, int], key: int) -> tuple[int, int, int, int]:
    """Return the four 32-bit words that Philox4x32-10 makes of a counter and a 64-bit key.

    >>> [f"{word:08x}" for word in philox((0, 0, 0, 0), 0)]
    ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    out = np.empty(4, np.uint32)
    kernels().words(np.uint64(counter[0] | counter[1] << 32), *_address(counter[2], counter[3], key), out)
    return tuple(out.tolist())  # type: ignore[return-value]


def complex_normal(
    count: int, key: int, frame: int = 0, offset: int = 0, power: float = 1.0, stream: int = NOISE
) -> np.ndarray:
    """Return `count` circular Gaussian samples n with E|n|^2 = `power`, complex64, from item `offset` of a frame on.

    n = sqrt(-power ln U) e^(2 pi i V), after Box and Muller (1958), in float32; |n|^2 reaches 22 times `power`, which
    is 6.66 standard deviations of a part.

    >>> a = complex_normal(5, key=1)
    >>> bool((a[3:] == complex_normal(2, key=1, offset=3)).all())
    True
    """
    out = np.empty(count, np.complex64)
    _draw(kernels().complex_normal, offset, _address(frame, stream, key), _scale(power), out)
    return out


def doppler_gains(
    count: int, doppler: float, key: int, frame: int = 0, offset: int = 0, process: int = 0
) -> np.ndarray:
    """Return gains h, complex64, of flat fading in time, E|h|^2 = 1, from symbol `offset` of a frame on.

    Many paths from all around the moving receiver (R. H. Clarke, 1968): h(t) = sum of a_m e^(2 pi i f t cos b_m), for
    `doppler` f in periods a symbol (at most 1/2), a_m complex Gaussian and b_m spread evenly, so that E[h(t + s) h*(t)]
    is J0(2 pi f s). Every frame has processes of its own, which are numbered. Raises `ValueError` for another
    `doppler`.
    """
    if not 0 <= doppler <= 0.5:
        raise ValueError(f"doppler must be 0 to 1/2 period a symbol, not {doppler:g}")
    first_path = process * SCATTERERS
    paths = complex_normal(SCATTERERS, key, frame, first_path, 1 / SCATTERERS, PATHS)
    spread = np.frombuffer(random_bytes(4 * SCATTERERS, key, frame, 4 * first_path), "<u4") / 2.0**32
    rates = doppler * np.cos(2 * np.pi * (np.arange(SCATTERERS) + spread) / SCATTERERS)
    step = 1 << max(0, int(np.floor(-np.log2(max(doppler, 1e-12) * DENSE))))
    first, last = offset // step - 1, (offset + count - 1) // step + 3
    parts = np.zeros((2, last - first), np.float32)
    words = np.round(rates * 2.0**62).astype(np.int64) << 2
    kernels().sum_of_tones(words, paths.view(np.float32), first * step, step, *parts)
    h = parts[0] + 1j * parts[1].astype(np.float64)
    at = np.arange(offset, offset + count)
    if step == 1:
        return h[at - first].astype(np.complex64)
    left, t = at // step - first, (at % step) / step
    before, here, then, after = (h[left + i] for i in (-1, 0, 1, 2))
    # Lagrange's polynomial through four places
    h = (
        before * (-t * (t - 1) * (t - 2) / 6)
        + here * ((t + 1) * (t - 1) * (t - 2) / 2)
        + then * (-(t + 1) * t * (t - 2) / 2)
        + after * ((t + 1) * t * (t - 1) / 6)
    )
    return h.astype(np.complex64)


def awgn(symbols: np.ndarray, n0: float, key: int, frame: int = 0, offset: int = 0) -> np.ndarray:
    """Return y = x + n with E|n|^2 = `n0` for complex64 symbols x, the first of which is item `offset` of its frame.

    >>> awgn(np.array([1, 1j]), 0.0, key=1)
    array([1.+0.j, 0.+1.j], dtype=complex64)

    Raises `ValueError` for an `n0` below 0, infinite or NaN.
    """
    symbols = array("symbols", symbols, np.complex64, None)
    out = np.empty(len(symbols), np.complex64)
    _draw(kernels().awgn, offset, _address(frame, NOISE, key), _scale(n0), symbols, out)
    return out


def fade(symbols: np.ndarray, gains: np.ndarray, n0: float, key: int, frame: int = 0, offset: int = 0) -> np.ndarray:
    """Return y = h x + n for complex64 symbols x and gains h, with the noise of `awgn`, and as that raises."""
    symbols, gains = _with_gains(symbols, gains)
    out = np.empty(len(symbols), np.complex64)
    _draw(kernels().fade, offset, _address(frame, NOISE, key), _scale(n0), gains, symbols, out)
    return out


def equalize(symbols: np.ndarray, gains: np.ndarray, n0: float = 0.0) -> np.ndarray:
    """Return y h* / (|h|^2 + N0) for complex64 symbols y and gains h.

    >>> equalize(np.array([2j, 1, 1]), np.array([2, 0, 1j]))
    array([0.+1.j, 0.+0.j, 0.-1.j], dtype=complex64)

    0 where h is 0 or infinite and, as float32 must hold |h|^2, where that is below 1e-38 or above 1e38; NaN where h or
    y is. Raises `ValueError` for an `n0` below 0, infinite or NaN.
    """
    _power("n0", n0)
    symbols, gains = _with_gains(symbols, gains)
    out = np.empty(len(symbols), np.complex64)
    parts = gains.view(np.float32), symbols.view(np.float32), out.view(np.float32)
    kernels().equalize(np.float32(n0), *parts)
    return out


def _with_gains(symbols: np.ndarray, gains: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    symbols = array("symbols", symbols, np.complex64, None)
    return symbols, array("gains", gains, np.complex64, len(symbols))


def random_bytes(count: int, key: int, frame: int = 0, offset: int = 0) -> np.ndarray:
    """Return `count` uniform bytes from byte `offset` of a frame on, a multiple of 16."""
    if offset % 16:
        raise ValueError(f"offset must be a multiple of 16 bytes, not {offset}")
    out = np.empty(-(-count // 16) * 4, np.uint32)
    kernels().words(np.uint64(offset // 16), *_address(frame, BITS, key), out)
    return out.astype("<u4", copy=False).view(np.uint8)[:count]


def flips(count: int, probability: float, key: int, frame: int = 0, offset: int = 0) -> np.ndarray:
    """Return `count` packed bits from bit `offset` of a frame on, each 1 with `probability` (to within 2^-33).

    >>> flips(12, 1.0, key=1)
    array([255, 240], dtype=uint8)

    Raises `ValueError` for a probability that is not 0 to 1.
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"probability must be 0 to 1, not {probability:g}")
    first, last = offset // 8, -(-(offset + count) // 8)
    out = np.empty(last - first, np.uint8)
    kernels().rare_bits(np.uint64(first), *_address(frame, FLIPS, key), np.uint64(round(probability * 2**32)), out)
    if offset % 8 or count % 8:
        out = np.packbits(np.unpackbits(out)[offset % 8 : offset % 8 + count])
    return out


def _draw(
    kernel: Callable[..., None],
    offset: int,
    address: tuple[np.uint64, np.uint64, np.uint64],
    scale: np.float32,
    *arrays: np.ndarray,
) -> None:
    """Call a kernel for the complex64 `arrays`."""
    kernel(np.uint64(offset), *address, scale, *(each.view(np.float32) for each in arrays))


def _address(frame: int, stream: int, key: int) -> tuple[np.uint64, np.uint64, np.uint64]:
    return np.uint64(frame & 0xFFFFFFFF), np.uint64(stream), np.uint64(key)


def _scale(power: float) -> np.float32:
    return np.float32(np.sqrt(_power("the power of noise", power)))


def _power(name: str, power: float) -> float:
    if not 0 <= power < np.inf:
        raise ValueError(f"{name} must be at least 0 and finite, not {power:g}")
    return power
