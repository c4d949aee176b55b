"""Makes `tdl_sionna.npz`: tapped delay lines and OFDM symbols by Sionna.

pip install sionna importlib_resources
python tests/vectors/tdl_sionna.py
"""

from pathlib import Path

import numpy as np
import sionna.phy
import torch
from sionna.phy.channel import ApplyTimeChannel, cir_to_time_channel
from sionna.phy.channel.tr38901 import TDL
from sionna.phy.ofdm import OFDMModulator

RATE = 15.36e6
DELAY_SPREAD = 65e-9
SAMPLES = 48  # through a channel that changes fast
FFT_SIZE, PREFIX = 64, 16


def main():
    sionna.phy.config.seed = 38901
    made = {"delay_spread": DELAY_SPREAD * RATE}
    for name in "ABCDE":
        model = TDL(name, DELAY_SPREAD, 3.5e9, min_speed=3000.0, precision="double")
        made[f"{name}_delays"] = (model.delays / DELAY_SPREAD).numpy()
        made[f"{name}_powers"] = model.mean_powers.numpy()
        made[f"{name}_line_of_sight"] = model.mean_power_los.numpy() if model.los else 0.0
        longest = int(np.ceil(float(model.delays.max()) * RATE))
        steps = SAMPLES + longest + 12
        gains, delays = model(1, steps, RATE)
        taps = cir_to_time_channel(RATE, gains, delays, -6, longest + 6)
        made[f"{name}_gains"] = gains[0, 0, 0, 0, 0].numpy().astype(np.complex64)
        made[f"{name}_taps"] = taps[0, 0, 0, 0, 0].numpy().astype(np.complex64)
        sent = torch.randn(1, 1, 1, SAMPLES, dtype=torch.complex128)
        received = ApplyTimeChannel(SAMPLES, longest + 13, precision="double")(sent, taps)
        made[f"{name}_sent"] = sent[0, 0, 0].numpy().astype(np.complex64)
        made[f"{name}_received"] = received[0, 0, 0].numpy().astype(np.complex64)
    grid = torch.randn(2, FFT_SIZE, dtype=torch.complex128)
    made["grid"] = grid.numpy().astype(np.complex64)
    made["ofdm"] = OFDMModulator(PREFIX, precision="double")(grid).numpy().astype(np.complex64)
    out = Path(__file__).with_suffix(".npz")
    np.savez_compressed(out, **made)
    print(out, out.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
