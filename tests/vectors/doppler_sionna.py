"""Makes `doppler_sionna.json`: the autocorrelation in time of the paths of Sionna's TDL models.

pip install sionna importlib_resources
python tests/vectors/doppler_sionna.py
"""

import json
from pathlib import Path

import numpy as np
import sionna.phy
from sionna.phy.channel.tr38901 import TDL

CARRIER, SPEED = 3.5e9, 30.0
DOPPLER = SPEED * CARRIER / 299792458
STEPS = 24  # a tenth of a period of the largest Doppler shift apart
CHANNELS, BATCHES = 1000, 4


def main():
    sionna.phy.config.seed = 1968
    found = {}
    for name in "AD":
        model = TDL(name, 100e-9, CARRIER, min_speed=SPEED, max_speed=SPEED)
        total = 0
        for _ in range(BATCHES):
            gains, _ = model(CHANNELS, STEPS, 10 * DOPPLER)
            h = gains[:, 0, 0, 0, 0].numpy()[:, int(model.los) :]  # scattered paths: [channels, paths, steps]
            h = h / np.sqrt(model.mean_powers.numpy()[-h.shape[1] :, None])
            total = total + (h * np.conj(h[:, :, :1])).mean((0, 1)) / BATCHES
        found[name] = {"real": total.real.round(5).tolist(), "imag": total.imag.round(5).tolist()}
        found[name]["realisations"] = CHANNELS * BATCHES * h.shape[1]
    found["periods"] = [round(0.1 * step, 1) for step in range(STEPS)]
    out = Path(__file__).with_suffix(".json")
    out.write_text(json.dumps(found, indent=1) + "\n")
    print(out, out.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
