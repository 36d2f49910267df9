"""A fixed embedding of instructions for policies that hear none: numbers drawn from the words, nothing learned.

A dense form of the hashing trick (Weinberger et al., 2009): each word and each pair of neighbours has a direction of
random signs, given by its hash, and a text is the sum of its directions. Equal texts are equal numbers on any machine.
"""

import hashlib
import re
from functools import lru_cache

import numpy as np

MOST = 512  # numbers: what one BLAKE2b digest holds
_LONGEST_RUN = 2  # words
_REMEMBERED = 4096  # texts


@lru_cache(maxsize=_REMEMBERED)
def embed(text: str, size: int = 64) -> np.ndarray:
    """The embedding of a text: (size,) float32 with root mean square 1; zeros for a text without words.

    Args:
        text: any; case and punctuation change nothing.
        size: a multiple of 8, at most ``MOST``.
    """
    assert size in range(8, MOST + 1, 8), size
    words = re.findall(r"\w+", text.casefold())
    total = np.zeros(size, np.float64)
    for length in range(1, _LONGEST_RUN + 1):
        for at in range(len(words) - length + 1):
            total += _direction(" ".join(words[at : at + length]), size)
    scale = np.sqrt(np.square(total).mean())
    result = (total / scale if scale else total).astype(np.float32)
    result.setflags(write=False)  # remembered, and shared by all who ask
    return result


def _direction(words: str, size: int) -> np.ndarray:
    """(size,) of -1 and 1."""
    digest = hashlib.blake2b(words.encode("utf-8", "replace"), digest_size=size // 8).digest()
    return 2.0 * np.unpackbits(np.frombuffer(digest, np.uint8)) - 1.0
