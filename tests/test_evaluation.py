"""How it is known that no test photograph is among those trained on."""

import io

import numpy as np
from PIL import Image
from skimage import data

from models.evaluation import difference_hash, nearest


def photographs():
    """Return photographs of different things, uint8 [N, 256, 256, 3]."""
    pictures = (data.astronaut(), data.coffee(), data.chelsea(), data.rocket())
    return np.stack([np.asarray(Image.fromarray(picture).resize((256, 256))) for picture in pictures])


def encoded_again(image):
    """Return a photograph as a small JPEG of it is read."""
    file = io.BytesIO()
    Image.fromarray(image).resize((128, 128)).save(file, "jpeg", quality=50)
    return np.asarray(Image.open(file).resize((256, 256)))


def test_a_photograph_encoded_again_is_near_and_another_is_far():
    images = photographs()
    hashes = difference_hash(images)
    assert hashes.shape == (4, 256)
    for number, image in enumerate(images):
        again = difference_hash(encoded_again(image)[None])
        assert nearest(again, hashes) == (again ^ hashes[number]).sum() <= 20
        assert nearest(again, np.delete(hashes, number, 0)) > 60


def test_the_nearest_is_the_smallest_number_of_bits_that_differ():
    a = np.array([[1, 1, 0, 0], [0, 0, 0, 0]], bool)
    b = np.array([[1, 1, 1, 1], [0, 1, 1, 1]], bool)
    assert nearest(a, b) == 2
    assert nearest(a, a[1:]) == 0
