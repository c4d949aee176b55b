"""The models at both ends of the link: a captioner, an autoencoder and a diffusion receiver.

A model is named by `embedded` (the small ones that the project trains and ships), by a local folder, or by a
hub id whose files are already on this machine. Nothing heavy is imported before a model is loaded.
"""

from .autoencoder import Autoencoder, load_autoencoder
from .captioner import Captioner, load_captioner
from .receiver import Receiver, load_receiver, load_tokenizer
from .weights import ModelMissing

__all__ = [
    "Autoencoder",
    "Captioner",
    "ModelMissing",
    "Receiver",
    "load_autoencoder",
    "load_captioner",
    "load_receiver",
    "load_tokenizer",
]
