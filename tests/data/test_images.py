"""Decoding pictures of many formats, and refusing those that cannot be used with a reason."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mixed_r1_ray.data.images import ImageError, decode_image, read_size

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encoded(picture: Image.Image, file_format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **options)
    return buffer.getvalue()


def photo(width: int = 40, height: int = 30) -> Image.Image:
    """Smooth colours, so that JPEG changes little."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - x], -1).astype(np.uint8))


def test_png_comes_back_bit_by_bit_as_height_width_channels():
    decoded = decode_image(encoded(photo()))
    assert decoded.shape == (30, 40, 3) and decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, np.asarray(photo()))


@pytest.mark.parametrize("file_format", ["JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM"])
def test_other_formats_come_back_nearly(file_format):
    decoded = decode_image(encoded(photo(), file_format))
    assert decoded.shape == (30, 40, 3)
    assert np.abs(decoded.astype(int) - np.asarray(photo())).mean() < 12


def test_one_pixel_is_a_picture():
    assert decode_image(encoded(Image.new("RGB", (1, 1), RED))).tolist() == [[[*RED]]]


@pytest.mark.parametrize("keep", [0.02, 0.3, 0.9])
def test_truncated_jpeg_is_refused_not_filled_with_grey(keep):
    data = encoded(photo(200, 200), "JPEG", quality=95)
    with pytest.raises(ImageError, match="cannot be decoded"):
        decode_image(data[: int(len(data) * keep)])


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"<html>404</html>", encoded(photo())[:60]])
def test_bytes_that_are_no_whole_picture_are_refused(data):
    with pytest.raises(ImageError, match="cannot be decoded"):
        decode_image(data)


def test_cmyk_jpeg_keeps_its_colours():
    red_ink = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    pixel = decode_image(encoded(red_ink, "JPEG", quality=100))[8, 8].astype(int)
    assert np.abs(pixel - RED).max() < 10


@pytest.mark.parametrize(
    ("file_format", "mode"), [("PNG", "I;16"), ("TIFF", "I;16"), ("TIFF", "I;16B"), ("PPM", "I")]
)
def test_sixteen_bit_grey_is_scaled_not_clipped(file_format, mode):
    values = np.array([[0, 257 * 64, 257 * 128, 65535]])
    picture = Image.new(mode, (4, 1))
    for x, value in enumerate(values[0].tolist()):
        picture.putpixel((x, 0), value)
    decoded = decode_image(encoded(picture, file_format))
    assert decoded[0, :, 0].tolist() == pytest.approx([0, 64, 128, 255], abs=1)
    assert (decoded[..., 0] == decoded[..., 2]).all()


@pytest.mark.parametrize(("mode", "value"), [("F", 0.5), ("I", 70_000), ("I", -1)])
def test_pixels_of_unknown_range_are_refused(mode, value):
    with pytest.raises(ImageError, match="not known"):
        decode_image(encoded(Image.new(mode, (2, 2), value), "TIFF"))


def test_sixteen_bit_colour_png_is_scaled():
    rows = b"\x00" + struct.pack(">6H", 65535, 257 * 128, 0, 0, 257 * 64, 65535)
    decoded = decode_image(png(2, 1, depth=16, colour=2, rows=rows))
    np.testing.assert_allclose(decoded[0], [[255, 128, 0], [0, 64, 255]], atol=1)


def test_transparency_is_laid_on_white():
    layer = Image.new("RGBA", (2, 1), (0, 0, 255, 0))
    layer.putpixel((1, 0), (0, 0, 255, 255))
    assert decode_image(encoded(layer))[0].tolist() == [[*WHITE], [*BLUE]]


def test_half_transparent_colour_is_mixed_with_white():
    assert decode_image(encoded(Image.new("RGBA", (1, 1), (255, 0, 0, 128))))[0, 0].tolist() == [
        255,
        127,
        127,
    ]


def test_grey_with_alpha_is_laid_on_white():
    assert decode_image(encoded(Image.new("LA", (1, 1), (0, 0))))[0, 0].tolist() == [*WHITE]


def test_palette_with_a_transparent_colour_is_laid_on_white():
    picture = Image.new("P", (2, 1))
    picture.putpalette([*RED, *GREEN])
    picture.putpixel((1, 0), 1)
    assert decode_image(encoded(picture))[0].tolist() == [[*RED], [*GREEN]]
    assert decode_image(encoded(picture, transparency=0))[0].tolist() == [[*WHITE], [*GREEN]]


def test_bilevel_picture_is_black_and_white():
    picture = Image.new("1", (2, 1))
    picture.putpixel((1, 0), 1)
    assert decode_image(encoded(picture))[0].tolist() == [[0, 0, 0], [*WHITE]]


@pytest.mark.parametrize(
    ("orientation", "corners"),
    [
        (1, [[RED, GREEN], [BLUE, WHITE]]),
        (2, [[GREEN, RED], [WHITE, BLUE]]),
        (3, [[WHITE, BLUE], [GREEN, RED]]),
        (6, [[BLUE, RED], [WHITE, GREEN]]),
        (8, [[GREEN, WHITE], [RED, BLUE]]),
    ],
)
def test_exif_orientation_is_applied(orientation, corners):
    picture = Image.new("RGB", (2, 2))
    for (x, y), colour in zip([(0, 0), (1, 0), (0, 1), (1, 1)], [RED, GREEN, BLUE, WHITE], strict=True):
        picture.putpixel((x, y), colour)
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode_image(encoded(picture, exif=exif))
    assert decoded.tolist() == [[[*colour] for colour in row] for row in corners]


def test_exif_rotation_of_a_jpeg_swaps_its_sides():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode_image(encoded(photo(40, 30), "JPEG", exif=exif)).shape == (40, 30, 3)


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG"])
def test_first_frame_of_an_animation_is_taken(file_format):
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, GREEN)]
    options = {"lossless": True} if file_format == "WEBP" else {}
    data = encoded(frames[0], file_format, save_all=True, append_images=frames[1:], **options)
    assert decode_image(data)[0, 0].tolist() == [*RED]


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG written by hand."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [8193, 20_000, 60_000])
def test_decompression_bomb_is_refused_by_its_header(side):
    with pytest.raises(ImageError, match="pixels|bomb"):
        decode_image(png(side, side, depth=8, colour=2, rows=b""))


def test_a_large_text_chunk_is_refused_as_pillow_refuses_it():
    info = zlib.compress(b"a" * (200 * 1024 * 1024), 9)
    body = b"Comment\x00\x00" + info
    chunk = struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(b"zTXt" + body))
    data = encoded(photo())
    with pytest.raises(ImageError):
        decode_image(data[:33] + chunk + data[33:])


@pytest.mark.parametrize(("file_format", "position"), [("DDS", 80), ("DDS", 4), ("TIFF", 12)])
def test_faults_that_pillow_reports_in_odd_ways_are_refusals_too(file_format, position):
    data = bytearray(SAMPLES[file_format])
    data[position] ^= 0xFF
    with pytest.raises(ImageError):
        decode_image(bytes(data))


SAMPLES = {
    file_format: encoded(photo(16, 12), file_format)
    for file_format in ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "ICO", "TGA", "DDS", "PCX", "SGI")
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=300)
@given(st.sampled_from(sorted(SAMPLES)), st.data())
def test_damaged_bytes_decode_or_are_refused_but_never_crash(file_format, data):
    damaged = bytearray(SAMPLES[file_format])
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(0, min(len(damaged), 120) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = decode_image(bytes(damaged))
    except ImageError:
        return
    assert decoded.dtype == np.uint8 and decoded.ndim == 3 and decoded.shape[2] == 3


def test_what_is_said_of_unknown_bytes_is_the_same_each_time():
    reasons = set()
    for _ in range(3):
        with pytest.raises(ImageError) as caught:
            decode_image(b"<html>404</html>")
        reasons.add(str(caught.value))
    assert reasons == {"cannot be decoded (it is in no known format)"}


@pytest.mark.parametrize("orientation, size", [(1, (40, 30)), (3, (40, 30)), (6, (30, 40)), (8, (30, 40))])
def test_the_size_in_the_header_is_that_of_the_decoded_picture(orientation, size):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(photo(), "JPEG", exif=exif)
    height, width, _ = decode_image(data).shape
    assert read_size(data) == size == (width, height)


def test_a_long_side_is_refused_before_the_picture_is_decoded():
    data = encoded(Image.new("1", (20_001, 2)))
    for read in (decode_image, read_size):
        with pytest.raises(ImageError, match="has 20001x2 pixels"):
            read(data)
