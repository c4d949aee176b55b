"""What is asked for again is what the receiver is unsure of, and that pays more than to repeat anything else."""

import numpy as np
import pytest

from blocks.fec.retransmission import ChaseCombiner, RetransmissionRequester, Retransmitter
from blocks.framing.deserializer import BitDeserializer
from blocks.framing.frame import Header
from blocks.framing.serializer import BitSerializer
from blocks.phy.channel import Equalizer, RayleighChannel
from blocks.phy.qam import QamDemapper, QamMapper
from flowgraph.block import BlockError, Context, Packet
from flowgraph.testing import run_block

CAPTION = b"a dog runs along the beach"
PART = {"part_bits": 384}
FADING = {"esn0": "15 dB", "fading": "doppler", "doppler": "1 kHz"}


def frames(layout="groups", count=4):
    rng = np.random.default_rng(2)
    sent = [Packet(rng.standard_normal((1, 4, 24, 24), np.float32), n, last=True) for n in range(count)]
    return sent, run_block(BitSerializer({"latent": "quant6", "layout": layout}), {"latent": sent})["bits"]


def across(bits, name, **params):
    air = RayleighChannel(FADING | params, name, Context(seed=5))
    faded = run_block(air, {"symbols": run_block(QamMapper(), {"bits": bits})["symbols"]})
    level = run_block(Equalizer({"method": "zf"}), faded)["symbols"]
    return run_block(QamDemapper({"output": "llr8"}), {"symbols": level, "gains": faded["gains"]})["bits"]


def error(sent, bits):
    got = run_block(BitDeserializer(), {"bits": bits})["latent"]
    told = np.mean([packet.tag("noise_variance") for packet in got])
    return np.mean([np.mean((a.data - b.data) ** 2) for a, b in zip(sent, got, strict=True)]), told


def second_round(bits, first, wanted):
    again = across(run_block(Retransmitter(PART), {"bits": bits, "wanted": wanted})["bits"], "air2")
    return run_block(ChaseCombiner(PART), {"bits": first, "again": again, "wanted": wanted})["bits"]


def test_unsure_parts_are_worth_more_than_others():
    sent, bits = frames()
    first = across(bits, "air")
    wanted = run_block(RetransmissionRequester(PART | {"above": 0.05}), {"bits": first})["wanted"]
    share = np.mean([packet.data.mean() for packet in wanted])
    assert 0.05 < share < 0.6
    turned = [packet.derive(np.roll(packet.data, packet.count // 2)) for packet in wanted]  # as many others
    once, told = error(sent, first)
    asked, told_asked = error(sent, second_round(bits, first, wanted))
    others, _ = error(sent, second_round(bits, first, turned))
    assert told == pytest.approx(once, rel=0.25)
    assert told_asked == pytest.approx(asked, rel=0.35)
    assert asked < 0.6 * once
    assert once - asked > 1.3 * (once - others)


def test_no_closed_form_is_told_of_what_was_combined():
    _, bits = frames(count=1)
    first = across(bits, "air")
    wanted = run_block(RetransmissionRequester(PART), {"bits": first})["wanted"]
    (made,) = second_round(bits, first, wanted)
    assert made.tag("true_channel") == first[0].tag("true_channel") | {"coded": True}


def test_what_is_sure_is_not_sent_again():
    _, bits = frames()
    first = across(bits, "air", esn0="60 dB", fading="symbol", doppler=None)
    wanted = run_block(RetransmissionRequester(PART), {"bits": first})["wanted"]
    assert not any(packet.data.any() for packet in wanted)
    assert [packet.count for packet in run_block(Retransmitter(PART), {"bits": bits, "wanted": wanted})["bits"]] == [
        0
    ] * 4


def test_all_of_a_frame_without_a_header_is_asked_for():
    _, bits = frames(count=1)
    wanted = run_block(RetransmissionRequester(PART), {"bits": [Packet(np.zeros(bits[0].count, np.int8), last=True)]})
    assert wanted["wanted"][0].data.all()


def captioned(latent, **params):
    texts = [Packet(np.frombuffer(CAPTION, np.uint8), n, last=True) for n in range(2)]
    sent = [Packet(np.ones((1, 4, 8, 8), np.float32), n, last=True) for n in range(2)]
    return run_block(BitSerializer({"latent": latent} | params), {"text": texts, "latent": sent})["bits"]


def clear(bits):
    """Return the LLRs of frames that come without noise."""
    signs = [1 - 2 * np.unpackbits(packet.data, count=packet.count).astype(np.int8) for packet in bits]
    return [Packet(80 * each, packet.frame, last=True) for packet, each in zip(bits, signs, strict=True)]


@pytest.mark.parametrize("latent", ["float32", "quant6"])
@pytest.mark.parametrize("params", [{}, {"scramble": False}, {"caption": "plain"}], ids=["coded", "bare", "plain"])
def test_a_damaged_caption_is_asked_for_and_nothing_else(latent, params):
    bits = captioned(latent, **params)
    header = Header(latent, (4, 8, 8), True, len(CAPTION), coded="caption" not in params)
    asking = RetransmissionRequester(PART | ({"above": None} if latent == "float32" else {}))
    assert not run_block(asking, {"bits": clear(bits)})["wanted"][0].data.any()
    damaged = clear(bits)
    for packet in damaged:
        packet.data[header.caption_start : header.latent_start] = 0
    wanted = run_block(asking, {"bits": damaged})["wanted"]
    part = np.arange(-(-header.bits // 384))
    expected = (part >= header.caption_start // 384) & (part <= (header.latent_start - 1) // 384)
    assert all((packet.data == expected).all() for packet in wanted)
    again = clear(run_block(Retransmitter(PART), {"bits": bits, "wanted": wanted})["bits"])
    combined = run_block(ChaseCombiner(PART), {"bits": damaged, "again": again, "wanted": wanted})["bits"]
    once, twice = (run_block(BitDeserializer(), {"bits": llrs})["text"] for llrs in (damaged, combined))
    assert [packet.tag("status") for packet in once] == ["damaged"] * 2
    assert [packet.data.tobytes() for packet in twice] == [CAPTION] * 2


def test_what_cannot_be_asked_for_is_told():
    _, bits = frames(count=1)
    with pytest.raises(BlockError, match="give all blocks the same part_bits"):
        Retransmitter(PART).work(bits[0], Packet(np.ones(3, np.uint8), last=True))
    _, planes = frames("planes", 1)
    with pytest.raises(BlockError, match="in groups, not quant6 by planes"):
        RetransmissionRequester(PART).work(across(planes, "air", esn0="60 dB", fading="symbol", doppler=None)[0])
