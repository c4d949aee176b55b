"""`python -m models.training autoencoder|tokenizer|receiver|captioner --data FOLDER --out FOLDER`."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

MINUTES = {"autoencoder": 55.0, "tokenizer": 0.0, "receiver": 52.0, "captioner": 94.0}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m models.training", description="Train the embedded models.")
    parser.add_argument("what", choices=MINUTES, help="which model; the receiver needs autoencoder and tokenizer")
    parser.add_argument("--data", type=Path, required=True, help="folder with {train,val}.npz and their captions")
    parser.add_argument("--out", type=Path, required=True, help="where weights and checkpoints go; a run resumes")
    parser.add_argument("--teacher", type=Path, help="captioner: safetensors of SqueezeNet 1.1's features")
    parser.add_argument("--minutes", type=float, help="training time without validation")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(arguments.threads)
    minutes = arguments.minutes or MINUTES[arguments.what]
    more = {"teacher": arguments.teacher} if arguments.what == "captioner" else {}
    importlib.import_module(f".{arguments.what}", __package__).run(arguments.data, arguments.out, minutes, **more)


if __name__ == "__main__":
    main()
