"""The LDPC code: Sionna's code words bit for bit, what it corrects beside what others published, redundancy versions,
and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.fec.ldpc import LdpcCode, base_graph, lifting_sizes
from blocks.phy import theory

VECTORS = Path(__file__).parent / "vectors" / "ldpc_sionna.npz"
PUBLISHED = json.loads((VECTORS.parent / "ldpc_published.json").read_text())["curves"]
OFFSET_MIN_SUM = [curve for curve in PUBLISHED if "offset min-sum" in curve["decoder"]]
SUM_PRODUCT = [curve for curve in PUBLISHED if "sum-product" in curve["decoder"]]
POINTS = sum(len(curve["points"]) for curve in OFFSET_MIN_SUM)
EACH = 1 - 0.01 / (2 * POINTS)  # 99 % for all intervals together, theirs and ours


def vectors():
    """Yield code, bits and code word of every vector."""
    stored = np.load(VECTORS)
    bits, words = stored["bits"], stored["words"]
    for k, n, graph, order, size in stored["params"].tolist():
        (b, bits), (word, words) = (np.split(data, [-(-count // 8)]) for data, count in ((bits, k), (words, n)))
        yield LdpcCode(k, n, graph, order), size, np.unpackbits(b, count=k), np.unpackbits(word, count=n)


def received(words, ebn0_db, rate, seed=1):
    """LLRs in quarters of code words sent by BPSK over white noise."""
    n0 = 10 ** (-ebn0_db / 10) / rate
    noise = np.random.default_rng(seed).standard_normal(words.shape) * np.sqrt(n0 / 2)
    return np.clip(np.rint(4 * 4 * (1 - 2.0 * words + noise) / n0), -127, 127).astype(np.int8)


def test_code_words_are_sionnas_for_every_lifting_size():
    sizes = set()
    for code, size, bits, word in vectors():
        assert code.lifting == size
        np.testing.assert_array_equal(code.encode(bits[None])[0], word, err_msg=str(code))
        sizes.add((code.graph, size))
    assert sizes == {(graph, size) for graph in (1, 2) for size in lifting_sizes()}


@settings(max_examples=60)
@given(st.data())
def test_without_noise_every_length_comes_back(data):
    graph = data.draw(st.sampled_from([1, 2]))
    k = data.draw(st.integers(1, 8448 if graph == 1 else 3840))
    order = data.draw(st.sampled_from([1, 2, 3, 4, 6, 8]))
    n = data.draw(st.integers(max(k * 10 // 9, k + 8), 6 * k + 8))
    code = LdpcCode(k, n, graph, order)
    bits = np.random.default_rng(k).integers(0, 2, (2, k), np.uint8)
    decoded = code.decode(np.where(code.encode(bits), -20, 20).astype(np.int8))
    np.testing.assert_array_equal(decoded.bits, bits)
    assert decoded.ok.all()


@pytest.mark.parametrize("graph", [1, 2])
@pytest.mark.parametrize("k", [1, 20, 640, 3840])
def test_where_the_rate_is_too_near_1_a_block_is_known_to_be_wrong(graph, k):
    code = LdpcCode(k, k, graph)
    bits = np.ones((3, k), np.uint8)
    decoded = code.decode(np.where(code.encode(bits), -20, 20).astype(np.int8))
    assert (decoded.bits != bits).any(1).all()
    assert not decoded.ok.any()


@pytest.mark.parametrize(
    ("k", "n", "graph", "good_db", "bad_db"),
    [(8448, 16896, 1, 1.5, 0.5), (3840, 7680, 1, 1.7, 0.5), (3840, 11520, 2, 1.2, 0.0), (600, 1200, 2, 2.7, 0.0)],
)
def test_blocks_come_right_above_the_threshold_and_wrong_ones_are_known(k, n, graph, good_db, bad_db):
    """Within about half a decibel of the normal approximation for these lengths; nothing can help 1 dB below it."""
    code = LdpcCode(k, n, graph)
    bits = np.random.default_rng(k).integers(0, 2, (100, k), np.uint8)
    words = code.encode(bits)
    decoded = code.decode(received(words, good_db, k / n))
    assert (decoded.bits != bits).any(1).sum() <= 3
    decoded = code.decode(received(words, bad_db, k / n))
    wrong = (decoded.bits != bits).any(1)
    assert wrong.sum() >= 90
    assert not decoded.ok[wrong].any()


@pytest.mark.parametrize("ebn0_db", [4, 8, 15, 30])
def test_more_signal_never_does_harm(ebn0_db):
    """Saturated int8 messages can make errors rise again with the SNR."""
    code = LdpcCode(3840, 7680, 1)
    bits = np.random.default_rng(5).integers(0, 2, (400, 3840), np.uint8)
    decoded = code.decode(received(code.encode(bits), ebn0_db, 0.5))
    np.testing.assert_array_equal(decoded.bits, bits)


# Against what others published


def lost_blocks(curve, ebn0_db, blocks):
    """How many of so many blocks are wrong, and how many there were."""
    k, n = curve["k"], curve["n"]
    code, wrong, done = LdpcCode(k, n, curve["graph"]), 0, 0
    while done < blocks:
        size = min(blocks - done, 4_000_000 // n)
        bits = np.random.default_rng([k, done]).integers(0, 2, (size, k), np.uint8)
        decoded = code.decode(
            received(code.encode(bits), ebn0_db, k / n, seed=[n, done]), iterations=curve["iterations"]
        )
        wrong, done = wrong + int((decoded.bits != bits).any(1).sum()), done + size
    return wrong, done


def read_off(curve, ebn0_db):
    """The published interval of the block error rate, along straight lines in log rate between its points."""
    points = np.array(curve["points"])
    bounds = [theory.binomial_interval(wrong, frames, EACH) for _, frames, wrong in curve["points"]]
    return [np.exp(np.interp(ebn0_db, points[:, 0], np.log(side))) for side in zip(*bounds, strict=True)]


@pytest.mark.parametrize("curve", OFFSET_MIN_SUM, ids=lambda c: f"graph {c['graph']}, k {c['k']}")
def test_block_error_rates_are_the_published_ones_of_the_same_decoder(curve):
    """Both base graphs, down to block error rates of 1e-3: our int8 is within 0.04 dB of the published float32."""
    for ebn0_db, frames, wrong in curve["points"][1:-1]:
        ours = theory.binomial_interval(*lost_blocks(curve, ebn0_db, int(max(400, 60 * frames / wrong))), EACH)
        assert ours[1] > read_off(curve, ebn0_db + 0.04)[0], f"{ebn0_db} dB: better than they say"
        assert ours[0] < read_off(curve, ebn0_db - 0.04)[1], f"{ebn0_db} dB: worse than they say"


@pytest.mark.parametrize("curve", SUM_PRODUCT, ids=lambda c: f"graph {c['graph']}, k {c['k']}")
def test_as_many_layered_iterations_of_min_sum_are_no_worse_than_published_flooding_ones_of_sum_product(curve):
    for ebn0_db, frames, wrong in curve["points"][1:-2]:
        low, _ = theory.binomial_interval(*lost_blocks(curve, ebn0_db, int(max(400, 60 * frames / wrong))), EACH)
        assert low < read_off(curve, ebn0_db)[1]


def capacity(esn0_db):
    """Bits a BPSK symbol can carry over white noise: 1 - E[log2(1 + e^-L)], where L is N(m, 2 m), m = 4 Es/N0."""
    x, weights = np.polynomial.hermite_e.hermegauss(200)
    mean = 4 * theory.db_to_ratio(esn0_db)
    losses = np.logaddexp(0, -(mean + np.sqrt(2 * mean) * x)) / np.log(2)
    return 1 - weights @ losses / weights.sum()


@pytest.mark.parametrize(
    ("versions", "esn0_db", "limit", "wrong"),
    [
        ((0,), 3.5, lambda esn0_db: capacity(esn0_db), 0),
        ((0, 0), 0.5, lambda esn0_db: capacity(esn0_db + 10 * np.log10(2)), 0),  # one symbol of twice the energy
        ((0, 2), -2.0, lambda esn0_db: 2 * capacity(esn0_db), 0),  # two symbols
        ((0,), 0.5, lambda esn0_db: capacity(esn0_db), 40),
        ((0, 0), -2.0, lambda esn0_db: capacity(esn0_db + 10 * np.log10(2)), 40),
    ],
)
def test_versions_gain_what_capacity_allows_and_chase_combining_cannot(versions, esn0_db, limit, wrong):
    """At a rate of 8/9 the limits are 2.5 dB for one version, -0.5 for it sent twice, -3.6 for versions 0 and 2."""
    code = LdpcCode(3200, 3600, 1, versions=versions)
    bits = np.random.default_rng(6).integers(0, 2, (40, 3200), np.uint8)
    decoded = code.decode(received(code.encode(bits), esn0_db, 1, seed=1))
    assert (limit(esn0_db) > 8 / 9) == (wrong == 0)
    assert (decoded.bits != bits).any(1).sum() == wrong
    assert (~decoded.ok).sum() == wrong


@pytest.mark.parametrize(
    ("k", "graph", "starts"),
    [(8448, 1, (0, 17, 33, 56)), (7000, 1, (0, 17, 33, 56)), (3840, 2, (0, 13, 25, 43)), (100, 2, (0, 13, 25, 43))],
)
def test_versions_begin_where_the_standard_has_them(k, graph, starts):
    """Table 5.4.2.1-2: in the buffer of N bits from k0 = starts Z on, fillers left out, as often as it takes."""
    size, systematic = LdpcCode(k, k, graph).lifting, {1: 20, 2: 8}[graph]
    places = [at for at in range({1: 66, 2: 50}[graph] * size) if not k - 2 * size <= at < systematic * size]
    payload = np.random.default_rng(k).integers(0, 2, (1, k), np.uint8)
    (buffer,) = LdpcCode(k, len(places), graph).encode(payload)
    n = len(places) // 3
    sent = LdpcCode(k, n, graph, versions=[0, 1, 2, 3]).encode(payload).reshape(4, n)
    for start, word in zip(starts, sent, strict=True):
        first = np.searchsorted(places, start * size)
        np.testing.assert_array_equal(word, np.resize(np.roll(buffer, -first), n))


@pytest.mark.parametrize("versions", [(0,), (3,), (2, 1, 0), (0, 3, 0, 3)])
def test_versions_that_hold_the_payload_decode_without_noise(versions):
    code = LdpcCode(1000, 2000, 1, 4, versions)
    bits = np.random.default_rng(7).integers(0, 2, (2, 1000), np.uint8)
    sent = code.encode(bits)
    assert sent.shape == (2, 2000 * len(versions))
    for place, version in enumerate(versions):
        alone = LdpcCode(1000, 2000, 1, 4, (version,)).encode(bits)
        np.testing.assert_array_equal(sent[:, 2000 * place : 2000 * (place + 1)], alone)
    np.testing.assert_array_equal(code.decode(np.where(sent, -20, 20).astype(np.int8)).bits, bits)


def test_erasures_are_filled_and_nothing_at_all_is_no_success():
    code = LdpcCode(1000, 3000, 1)
    bits = np.random.default_rng(8).integers(0, 2, (1, 1000), np.uint8)
    llrs = np.where(code.encode(bits), -20, 20).astype(np.int8)
    llrs[:, np.random.default_rng(9).permutation(3000)[:1500]] = 0
    np.testing.assert_array_equal(code.decode(llrs).bits, bits)
    llrs[:] = 0
    assert not code.decode(llrs).ok.any()
    llrs[0, 7] = 20  # fulfils all checks, as nothing does
    assert not code.decode(llrs).ok.any()


def test_no_blocks_are_no_fault():
    code = LdpcCode(100, 200, 2)
    sent = code.encode(np.empty((0, 100), np.uint8))
    assert sent.shape == (0, 200)
    assert code.decode(sent.view(np.int8)).bits.shape == (0, 100)


@pytest.mark.parametrize("graph", [1, 2])
def test_a_block_of_zeros_comes_right_and_is_known_to(graph):
    code = LdpcCode(1000, 2000, graph)
    decoded = code.decode(np.full((1, 2000), 20, np.int8))
    assert decoded.ok.all()
    assert not decoded.bits.any()


def test_the_standards_choice_of_graph():
    assert [base_graph(*case) for case in ((292, 0.9), (3824, 0.67), (3825, 0.67), (3824, 0.68), (9000, 0.25))] == [
        2, 2, 1, 1, 2,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 10, 1), "k must be 1 to 8448 for base graph 1, not 0"),
        ((3841, 9000, 2), "k must be 1 to 3840 for base graph 2, not 3841"),
        ((100, 90, 1), "n must be at least k, 100, not 90: the rate cannot exceed 1"),
        ((100, 200, 1, 0), "order must be at least 1, not 0"),
        ((100, 200, 3), "graph must be 1 or 2, not 3"),
        ((100, 200, 1, 1, (0, 4)), r"versions must be one or more of 0 to 3, not \(0, 4\)"),
        ((100, 200, 1, 1, ()), r"versions must be one or more of 0 to 3, not \(\)"),
    ],
)
def test_what_the_code_cannot_do_is_told(arguments, message):
    with pytest.raises(ValueError, match=message):
        LdpcCode(*arguments)
