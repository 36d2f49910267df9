"""Each codec gives back what it took, refuses anything else, and is what Zarr says it is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from tandem_datasets.codecs import CODECS, codec_by_name, decode_text, encode_text
from tandem_datasets.errors import TandemError


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
@given(image=arrays(st.sampled_from([np.uint8, np.uint16]), array_shapes(min_dims=3, max_dims=3, max_side=9)))
def test_lossless_codecs_round_trip(codec, image):
    assert codec.lossless
    out = np.empty_like(image)
    codec.decode(memoryview(codec.encode(image)), out)
    assert out.tobytes() == image.tobytes()


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
@pytest.mark.parametrize("size", [47, 49, 1, 5000])
def test_wrong_sizes_are_refused(codec, size):
    data = memoryview(codec.encode(np.zeros(size, np.uint8)))
    with pytest.raises((ValueError, RuntimeError)):
        codec.decode(data, np.empty(48, np.uint8))


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
