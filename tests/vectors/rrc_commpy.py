"""Makes `rrc_commpy.json`: root-raised-cosine pulses by CommPy, of unit energy.

pip install scikit-commpy
python tests/vectors/rrc_commpy.py
"""

import json
from pathlib import Path

import numpy as np
from commpy.filters import rrcosfilter


def main():
    made = []
    for samples_per_symbol, rolloff in ((2, 0.25), (4, 0.35), (8, 0.2), (4, 1.0)):
        count = 20 * samples_per_symbol
        pulse = rrcosfilter(count, rolloff, 1.0, samples_per_symbol)[1]  # from -10 symbols on, without the last sample
        pulse = pulse / np.sqrt(pulse @ pulse)
        made.append({"samples_per_symbol": samples_per_symbol, "rolloff": rolloff, "pulse": pulse.tolist()})
    Path(__file__).with_suffix(".json").write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
