"""Each codec gives back what it took, refuses anything else, and is what Zarr says it is."""

import resource

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tandem_datasets.codecs import CODECS, codec_by_name, decode_text, encode_text
from tandem_datasets.errors import TandemError

LOSSLESS = [codec for codec in CODECS.values() if codec.lossless]
SIDES = st.tuples(st.integers(1, 40), st.integers(1, 40))


@pytest.mark.parametrize("codec", LOSSLESS, ids=lambda codec: codec.name)
@settings(max_examples=40)
@given(image=SIDES.flatmap(lambda sides: arrays(np.uint8, (*sides, 3))))
def test_lossless_codecs_round_trip(codec, image):
    out = np.empty_like(image)
    codec.decode(memoryview(codec.encode(image)), out)
    assert out.tobytes() == image.tobytes()


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
@settings(max_examples=40)
@given(image=SIDES.flatmap(lambda sides: arrays(np.uint16, (*sides, 1))))
def test_depth_is_lossless_in_every_codec(codec, image):
    out = np.empty_like(image)
    codec.decode(memoryview(codec.encode(image)), out)
    assert out.tobytes() == image.tobytes()


def _psnr(a, b):
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b.astype(float)) ** 2))


@pytest.mark.parametrize("sides", [(128, 128), (96, 160), (480, 640)])
def test_jpeg_keeps_40_db_of_pictures(picture, sides):
    codec = CODECS["jpeg"]
    for seed in range(3):
        image = picture(*sides, seed)
        data = codec.encode(image)
        out = np.empty_like(image)
        codec.decode(memoryview(data), out)
        assert _psnr(out, image) >= 40
        assert len(data) < image.nbytes / 5


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
@pytest.mark.parametrize("shape", [(47, 48, 3), (49, 48, 3), (1, 1, 3), (500, 1000, 3), (48, 48, 1)])
def test_wrong_sizes_are_refused(codec, shape):
    data = memoryview(codec.encode(np.zeros(shape, np.uint8)))
    with pytest.raises((ValueError, RuntimeError)):
        codec.decode(data, np.empty((48, 48, 3), np.uint8))


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_cut_images_are_refused(codec, kind):
    image = np.random.default_rng(0).integers(0, 255, (40, 40, 3 if kind == np.uint8 else 1)).astype(kind)
    data = codec.encode(image)
    for size in (0, 1, 5, len(data) // 2, len(data) - 1):
        with pytest.raises((ValueError, RuntimeError)):
            codec.decode(memoryview(data)[:size], np.empty_like(image))


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_a_hostile_size_takes_no_memory(codec):
    """A few bytes that say to hold 200 MB."""
    data = memoryview(codec.encode(np.zeros((8192, 8192, 3), np.uint8)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises((ValueError, RuntimeError)):
        codec.decode(data, np.empty((48, 48, 3), np.uint8))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000


@given(data=st.binary(max_size=40))
def test_zstd_refuses_garbage(data):
    with pytest.raises((ValueError, RuntimeError)):
        CODECS["zstd"].decode(memoryview(data), np.empty(48, np.uint8))


def test_zstd_sees_a_flipped_bit():
    image = np.random.default_rng(0).integers(0, 255, 300, np.uint8)
    data = bytearray(CODECS["zstd"].encode(image))
    data[100] ^= 1
    with pytest.raises(RuntimeError):
        CODECS["zstd"].decode(memoryview(data), np.empty_like(image))


@given(text=st.text(st.characters(codec="utf-8")))
def test_texts_round_trip(text):
    assert decode_text(memoryview(encode_text(text)), "here") == text


@pytest.mark.parametrize("data", [b"", b"\1\0\0\0\2\0\0\0a", b"\2\0\0\0\1\0\0\0a", b"\1\0\0\0\1\0\0\0\xff"])
def test_damaged_texts_are_refused(data):
    with pytest.raises(TandemError, match="here: damaged text"):
        decode_text(memoryview(data), "here")


def test_unknown_codec_suggests():
    with pytest.raises(TandemError, match="did you mean 'zstd'"):
        codec_by_name("zstandard", "store x")
