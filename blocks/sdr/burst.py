"""The burst: what goes over the air, field by field. `docs/waveform.md` draws it.

A burst is a preamble, a header and a body, symbols one behind the other:

    preamble  104 symbols: Barker's code of 13, eight times, with signs
    header    150 symbols: 15 bytes and their CRC, convolutional code of rate 1/2, QPSK
    body      the payload and its CRC, coded if wanted, scrambled, of the order that the header tells, among pilots
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from blocks.fec import convolutional, crc
from blocks.gold import gold_sequence
from blocks.phy.constellation import Standard, constellation
from blocks.phy.pilots import Pattern
from blocks.phy.qam import map_symbols

VERSION = 1
BARKER = np.array([1, 1, 1, 1, 1, -1, -1, 1, 1, -1, 1, -1, 1], np.float32)
SIGNS = np.array([1, 1, 1, 1, -1, 1, 1, -1], np.float32)  # their changes are Barker's code of 7
PREAMBLE = (np.kron(SIGNS, BARKER) * (1 + 1j) / 2**0.5).astype(np.complex64)
PILOTS = Pattern(spacing=32)

Code = Literal["none", "1/2", "2/3", "3/4", "5/6"]
_MODULATIONS, _CODES = get_args(Standard), get_args(Code)
_WIDTHS = (4, 4, 4, 4, 16, 16, 28, 28, 16)  # bits of a header's fields, the first of which is the version
HEADER_BITS = sum(_WIDTHS)  # a whole number of bytes
_CODED_HEADER_BITS = convolutional.coded_bits(HEADER_BITS + crc.width("crc24a"))
HEADER_SYMBOLS = _CODED_HEADER_BITS // 2
KNOWN = len(PREAMBLE) + HEADER_SYMBOLS  # symbols that a receiver knows once it has read the header
CHECK_BITS = 32
LONGEST_PACKET, LONGEST_FRAME = (1 << 16) - 1, (1 << 28) - 1  # bits
C_INIT = 0xA14_B0C5  # of the scrambler; any number would do that is not another scrambler's


@dataclass(frozen=True, slots=True)
class Header:
    """What a receiver must know of a packet.

    modulation  of the body
    code        rate of the convolutional code of the body, or none
    frame       number of the frame that the packet is of, modulo 2^16
    sequence    number of the packet, modulo 2^16
    frame_bits  bits of the whole frame
    offset      bits of the frame before this packet
    count       bits of this packet
    """

    modulation: Standard
    code: Code
    frame: int
    sequence: int
    frame_bits: int
    offset: int
    count: int

    @property
    def data_symbols(self) -> int:
        """Symbols of the body without its pilots."""
        return -(-coded_bits(self.count, self.code) // constellation(self.modulation).bits_per_symbol)

    @property
    def symbols(self) -> int:
        """Symbols of the burst."""
        return KNOWN + PILOTS.place(self.data_symbols) + PILOTS.length

    def pack(self) -> np.ndarray:
        """Return the header's bytes, its CRC at the end: uint8 [18]."""
        kinds = (VERSION, _MODULATIONS.index(self.modulation), _CODES.index(self.code), 0)
        fields = (*kinds, self.frame, self.sequence, self.frame_bits, self.offset, self.count)
        number = 0
        for value, width in zip(fields, _WIDTHS, strict=True):
            number = number << width | value
        data = np.frombuffer(number.to_bytes(HEADER_BITS // 8, "big"), np.uint8)
        check = crc.checksum(data, HEADER_BITS, "crc24a").to_bytes(3, "big")
        return np.concatenate([data, np.frombuffer(check, np.uint8)])

    @staticmethod
    def unpack(data: np.ndarray) -> Header | None:
        """Read what `pack` made; None where its CRC does not fit, or it tells of what there is not."""
        if crc.checksum(data, HEADER_BITS, "crc24a") != int.from_bytes(data[-3:].tobytes(), "big"):
            return None
        number, fields = int.from_bytes(data[:-3].tobytes(), "big"), []
        for width in reversed(_WIDTHS):
            fields.append(number & (1 << width) - 1)
            number >>= width
        version, modulation, code, unused, frame, sequence, frame_bits, offset, count = reversed(fields)
        if version != VERSION or unused or modulation >= len(_MODULATIONS) or code >= len(_CODES):
            return None
        if offset + count > frame_bits:
            return None
        return Header(_MODULATIONS[modulation], _CODES[code], frame, sequence, frame_bits, offset, count)


@functools.cache
def scrambling() -> np.ndarray:
    """Return the scrambler's bits, packed: the Gold sequence of `C_INIT`, as long as the longest body."""
    sequence = np.packbits(gold_sequence(C_INIT, 2 * (LONGEST_PACKET + 64)))
    sequence.flags.writeable = False
    return sequence


def coded_bits(count: int, code: Code) -> int:
    """Return how many bits the body has for `count` bits of payload."""
    return count + CHECK_BITS if code == "none" else convolutional.coded_bits(count + CHECK_BITS, code)


def header_symbols(header: Header) -> np.ndarray:
    """Return the header's QPSK symbols, complex64 [HEADER_SYMBOLS]."""
    packed = header.pack()
    coded = convolutional.encode(packed, 8 * len(packed))
    return map_symbols(coded ^ scrambling()[: len(coded)], _CODED_HEADER_BITS, "qpsk")


def read_header(llrs: np.ndarray) -> Header | None:
    """Read a header from the LLRs ln p(0)/p(1) of its bits as sent, int8 [2 HEADER_SYMBOLS]; None if there is none."""
    bits = HEADER_BITS + crc.width("crc24a")
    return Header.unpack(convolutional.decode(descrambled(llrs), bits))


def body_symbols(packed: np.ndarray, header: Header) -> np.ndarray:
    """Return the symbols, pilots among them, of the `header.count` packed bits of a payload."""
    bits = np.unpackbits(packed, count=header.count)
    check = np.frombuffer(payload_check(packed, header.count).to_bytes(4, "big"), np.uint8)
    body = np.packbits(np.concatenate([bits, np.unpackbits(check)]))
    if header.code != "none":
        body = convolutional.encode(body, header.count + CHECK_BITS, header.code)
    body = body ^ scrambling()[: len(body)]
    return PILOTS.insert(map_symbols(body, coded_bits(header.count, header.code), header.modulation))


def payload_check(packed: np.ndarray, count: int) -> int:
    """Return the CRC-32 of `count` packed bits, the last byte filled up with zeros."""
    return crc.checksum(packed, count, "crc32")


def descrambled(llrs: np.ndarray) -> np.ndarray:
    """Return LLRs of scrambled bits as those of the bits before: the signs turn where the scrambler has a 1."""
    flips = np.unpackbits(scrambling(), count=len(llrs)).view(np.bool_)
    return np.negative(llrs, out=llrs.copy(), where=flips)
