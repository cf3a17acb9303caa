"""Every odd image has a defined reading, or an error that names the file."""

import io
import os
import random
import struct
import subprocess
import zlib

import numpy as np
import pytest
from PIL import Image

from ipo.data import images
from ipo.data.formats import FORMATS, HEIF_INSTALLED, IMAGE_SUFFIXES
from ipo.data.images import load_image, unopenable
from ipo.errors import DataError
from tests.data.builders import encoded


def pixels(path):
    image = load_image(path)
    assert image.mode == "RGB"
    return np.asarray(image)


def test_a_plain_image_is_as_pillow_reads_it(tmp_path):
    path = tmp_path / "a.png"
    values = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(values).save(path)
    assert np.array_equal(pixels(path), values)


def test_grey_is_repeated(tmp_path):
    values = np.arange(20, dtype=np.uint8).reshape(4, 5)
    Image.fromarray(values).save(tmp_path / "grey.png")
    assert np.array_equal(pixels(tmp_path / "grey.png"), np.stack([values] * 3, axis=-1))


def test_black_and_white_is_0_and_255(tmp_path):
    Image.fromarray(np.array([[0, 255]], dtype=np.uint8)).convert("1").save(tmp_path / "bits.png")
    assert pixels(tmp_path / "bits.png")[0].tolist() == [[0, 0, 0], [255, 255, 255]]


def test_a_palette_is_looked_up(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 0])
    image.putdata([1, 0])
    image.save(tmp_path / "palette.gif")
    assert pixels(tmp_path / "palette.gif")[0].tolist() == [[200, 100, 0], [10, 20, 30]]


def test_a_transparent_palette_colour_is_white(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 0])
    image.putdata([1, 0])
    image.save(tmp_path / "palette.png", transparency=0)
    assert pixels(tmp_path / "palette.png")[0].tolist() == [[200, 100, 0], [255, 255, 255]]


def test_a_transparent_rgb_colour_is_white(tmp_path):
    image = Image.new("RGB", (2, 1), (1, 2, 3))
    image.putpixel((1, 0), (9, 9, 9))
    image.save(tmp_path / "key.png", transparency=(1, 2, 3))
    assert pixels(tmp_path / "key.png")[0].tolist() == [[255, 255, 255], [9, 9, 9]]


@pytest.mark.parametrize(("mode", "value"), [("RGBA", (0, 0, 200, 51)), ("LA", (40, 51))])
def test_alpha_is_laid_on_white(mode, value, tmp_path):
    Image.new(mode, (1, 1), value).save(tmp_path / "alpha.png")
    share = 51 / 255
    colour = value[:3] if mode == "RGBA" else value[:1] * 3
    expected = [round(channel * share + 255 * (1 - share)) for channel in colour]
    assert np.abs(pixels(tmp_path / "alpha.png")[0, 0].astype(int) - expected).max() <= 1


def test_cmyk_is_converted(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "print.jpg", quality=100)
    red, green, blue = pixels(tmp_path / "print.jpg")[4, 4].tolist()
    assert red > 240
    assert max(green, blue) < 15


def test_16_bit_grey_is_scaled_and_not_clipped(tmp_path):
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    assert pixels(tmp_path / "deep.png")[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        ("int32", [0, 100, 255], [0, 100, 255]),
        ("int32", [0, 257, 65535], [0, 1, 255]),
        ("int32", [0, 65536, 131072], [0, 128, 255]),
        ("float32", [0.0, 0.5, 1.0], [0, 128, 255]),
        ("float32", [-5.0, 127.4, 255.0], [0, 127, 255]),
        ("float32", [0.0, float("nan"), 65535.0], [0, 0, 255]),
        ("float32", [0.0, 0.0, 0.0], [0, 0, 0]),
    ],
)
def test_deep_grey_of_unstated_range_is_scaled_to_the_nearest_white(kind, values, expected, tmp_path):
    Image.fromarray(np.array([values], dtype=kind)).save(tmp_path / "deep.tif")
    assert pixels(tmp_path / "deep.tif")[0, :, 0].tolist() == expected


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation, tmp_path):
    upright = np.arange(6 * 8, dtype=np.uint8).reshape(6, 8)
    stored = {
        1: upright, 2: np.fliplr(upright), 3: np.rot90(upright, 2), 4: np.flipud(upright), 5: upright.T,
        6: np.rot90(upright, 1), 7: np.rot90(upright, 2).T, 8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(pixels(tmp_path / "turned.png")[..., 0], upright)


def test_broken_exif_leaves_the_image_as_it_is(tmp_path):
    exif = b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x09\x01\x12garbage"
    Image.new("RGB", (4, 3), "red").save(tmp_path / "odd.jpg", exif=exif)
    assert pixels(tmp_path / "odd.jpg").shape == (3, 4, 3)


def test_of_an_animation_the_first_frame_is_read(tmp_path):
    frames = [Image.new("RGB", (2, 2), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert pixels(tmp_path / "moving.gif")[0, 0].tolist() == [255, 0, 0]


def truncated() -> bytes:
    rows = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(rows).save(buffer, "JPEG")
    return buffer.getvalue()[:-400]


def png_of_size(width: int, height: int) -> bytes:
    """A PNG that announces a size and has next to no data: a decompression bomb's header."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"<html>404</html>", "no known image format"),
        (truncated(), "truncated"),
        (encoded("PNG")[:40], "cannot read image"),
        (png_of_size(11_600, 11_600), "image is too large"),
        (png_of_size(501, 1), "image is too large"),
        (png_of_size(60_000, 60_000), "image is too large"),
        (png_of_size(0, 5), "cannot read image"),
    ],
    ids=["empty", "html", "truncated", "half-a-header", "too-large", "strip", "bomb", "no-width"],
)
def test_unreadable_images_are_errors_that_name_the_file(content, message, tmp_path):
    path = tmp_path / "odd.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        load_image(path)
    assert str(path) in str(caught.value)


def test_between_pillows_warning_and_our_bound_an_image_is_read(tmp_path, monkeypatch):
    Image.new("RGB", (40, 30)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow warns above it, and tests treat warnings as errors
    assert load_image(tmp_path / "large.png").size == (40, 30)
    monkeypatch.setattr(images, "MAX_PIXELS", 1100)
    with pytest.raises(DataError, match="too large"):
        load_image(tmp_path / "large.png")


def test_a_missing_file_and_a_folder_are_errors(tmp_path):
    with pytest.raises(DataError, match=r"no such file.*none\.jpg"):
        load_image(tmp_path / "none.jpg")
    with pytest.raises(DataError, match="cannot read image"):
        load_image(tmp_path)


def test_names_that_are_not_ascii_are_read(tmp_path):
    path = tmp_path / "фото 日本 é.jpg"
    path.write_bytes(encoded())
    assert load_image(path).size == (4, 3)


def test_what_cannot_be_opened_is_named_without_decoding_the_rest(tmp_path, monkeypatch):
    whole = encoded()
    contents = {"good.jpg": whole, "cut.jpg": whole[: len(whole) - 9], "empty.jpg": b"", "text.jpg": b"hello"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("decoded"))
    found = unopenable(tmp_path / name for name in (*contents, "gone.jpg", "gone.jpg"))
    assert {path.name: reason.removeprefix("cannot read image: ") for path, reason in found.items()} == {
        "empty.jpg": "the file is empty",
        "text.jpg": "no known image format",
        "gone.jpg": "no such file",
    }


def encoded_as(kind, mode="RGB", size=(40, 30), **options):
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    Image.fromarray(noise, "RGBA").convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["EPS", "PDF", "DDS", "ICO", "PSD", "TGA", "PCX", "SGI"])
def test_a_format_that_is_not_named_is_refused_behind_any_ending_and_starts_nothing(kind, tmp_path, monkeypatch):
    psd = b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 4, 4, 8, 3) + bytes(100)
    (tmp_path / "odd.jpg").write_bytes(psd if kind == "PSD" else encoded_as(kind))
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("started a program"))
    with pytest.raises(DataError, match=r"no known image format.*odd\.jpg"):
        load_image(tmp_path / "odd.jpg")
    assert list(unopenable([tmp_path / "odd.jpg"])) == [tmp_path / "odd.jpg"]


@pytest.mark.parametrize(("kind", "suffix"), [(kind, suffix) for kind, all_ in FORMATS.items() for suffix in all_])
def test_each_format_that_is_named_is_read(kind, suffix, tmp_path):
    (tmp_path / f"a{suffix}").write_bytes(encoded_as(kind))
    assert load_image(tmp_path / f"a{suffix}").size == (40, 30)
    assert suffix in IMAGE_SUFFIXES


def test_two_pictures_of_a_stereo_camera_are_read_as_the_first(tmp_path):
    other = Image.new("RGB", (8, 6), "blue")
    Image.new("RGB", (8, 6), "red").save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[other])
    assert pixels(tmp_path / "a.jpg")[3, 4, 0] > 240


class _OddError(Exception):
    """What nobody expects of a decoder."""


FAULTS = [
    struct.error,
    zlib.error,
    KeyError,
    IndexError,
    AssertionError,
    ZeroDivisionError,
    OverflowError,
    RuntimeError,
]
FAULTS += [TypeError, AttributeError, RecursionError, MemoryError, NotImplementedError, _OddError]


@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_a_decoder_raises_is_one_kind_of_error(fault, tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(encoded_as("PNG"))

    def fail(*_):
        raise fault("odd")

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "load", fail)
        patch.setattr("PIL.ImageFile.ImageFile.load", fail)
        with pytest.raises(DataError, match=r"cannot read image: .*odd.*a\.png"):
            load_image(path)
    monkeypatch.setattr(images, "open_image", fail)
    assert "odd" in unopenable([path])[path]


def reading(path):
    """The mode of an image that can be read, or the error and its place."""
    try:
        return load_image(path).mode
    except DataError as error:
        return f"DataError {error.where}"


MODES = [("PNG", "RGBA"), ("PNG", "P"), ("PNG", "I;16"), ("TIFF", "CMYK"), ("TIFF", "F"), ("GIF", "P"), ("PPM", "L")]
MODES += [(kind, "RGB") for kind in FORMATS]


@pytest.mark.parametrize(("kind", "mode"), MODES)
def test_damaged_pictures_are_read_or_named(kind, mode, tmp_path):
    """60 damages of each format, seeded: bytes changed, left out, doubled, and the end cut off."""
    whole, dice = encoded_as(kind, mode), random.Random(f"{kind}{mode}")
    path, refused = tmp_path / "odd.jpg", 0
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(dice.choice((1, 3, 20))):
            data[dice.randrange(len(data))] = dice.randrange(256)
        start, length = dice.randrange(len(data)), dice.randrange(40)
        data[start : start + length] = dice.choice((b"", data[start : start + length] * 2, bytes(length)))
        path.write_bytes(data[: dice.choice((len(data), dice.randrange(1, len(data))))])
        refused += reading(path).startswith(f"DataError {path}")
        unopenable([path])
    assert refused


def test_a_small_file_with_a_large_picture_is_refused_before_its_pixels_are_made(tmp_path, monkeypatch):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_of_size(13_377, 13_377))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _: pytest.fail("decoded"))
    with pytest.raises(DataError, match=r"too large: 13377 x 13377 pixels.*bomb\.png.*Scale it down"):
        load_image(path)
    assert "too large" in unopenable([path])[path]


@pytest.mark.parametrize("chunk", [b"zTXt", b"iCCP"])
def test_a_bomb_beside_the_pixels_is_an_error(chunk, tmp_path):
    whole = encoded_as("PNG")
    body = b"name\0\0" + zlib.compress(bytes(1 << 27), 9)
    packed = struct.pack(">I", len(body)) + chunk + body + struct.pack(">I", zlib.crc32(chunk + body))
    (tmp_path / "bomb.png").write_bytes(whole[:33] + packed + whole[33:])
    with pytest.raises(DataError, match=r"cannot read image.*bomb\.png"):
        load_image(tmp_path / "bomb.png")


def test_a_huge_file_and_a_pipe_are_errors_and_never_waited_for(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "huge.jpg").write_bytes(encoded())
    monkeypatch.setattr(images, "MAX_FILE_BYTES", 100)
    for name, message in (("pipe.jpg", "not a file"), ("huge.jpg", "too large: .* bytes")):
        with pytest.raises(DataError, match=message):
            load_image(tmp_path / name)


@pytest.mark.parametrize(
    ("mode", "kind"), [("RGBA", "PNG"), ("LA", "PNG"), ("I;16", "PNG"), ("F", "TIFF"), ("P", "GIF")]
)
def test_strips_give_the_picture_that_the_whole_gives(mode, kind, tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(encoded_as(kind, mode))
    whole = pixels(tmp_path / "a.png")
    monkeypatch.setattr(images, "STRIP", 100)
    assert np.array_equal(pixels(tmp_path / "a.png"), whole)


@pytest.mark.skipif(not HEIF_INSTALLED, reason="needs the extra heic")
def test_pictures_of_phones_are_read(tmp_path):
    import pillow_heif

    pillow_heif.register_heif_opener()
    (tmp_path / "a.heic").write_bytes(encoded_as("HEIF"))
    assert load_image(tmp_path / "a.heic").size == (40, 30)


@pytest.mark.skipif(HEIF_INSTALLED, reason="the extra heic is installed")
def test_a_picture_of_a_phone_names_the_extra_that_reads_it(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"\0\0\0\x1cftypheic" + bytes(100))
    with pytest.raises(DataError, match=r"pip install 'ipo-prompts\[heic\]'"):
        load_image(tmp_path / "a.jpg")


def test_damaged_pictures_write_no_line_of_their_own_to_the_screen(tmp_path, capfd):
    random = np.random.default_rng(0)
    picture, kinds = Image.new("L", (40, 40), 200), {"tiff_lzw": "L", "tiff_deflate": "L", "jpeg": "L", "group4": "1"}
    damaged = 0
    for compression, mode in kinds.items():
        whole = io.BytesIO()
        picture.convert(mode).save(whole, "TIFF", compression=compression)
        for _ in range(50):
            data = np.frombuffer(whole.getvalue(), dtype=np.uint8).copy()
            data[random.integers(0, len(data), 5)] = random.integers(0, 256, 5)
            try:
                images.decode_image(data.tobytes(), tmp_path / "x.tif")
            except DataError:
                damaged += 1
    assert damaged > 20
    assert capfd.readouterr() == ("", "")
