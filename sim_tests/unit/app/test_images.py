"""Photographs: size arguments, cutting, errors in one sentence."""
import numpy as np
import pytest
from PIL import Image

from compiler.images import PHOTOS, fit, load_photo, package_file, parse_size
from compiler.networks import weight_file


@pytest.mark.parametrize("text, size", [("96", (96, 96)), ("320x240", (320, 240)), (" 64X17 ", (64, 17))])
def test_size_is_width_by_height(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "x", "96x", "x96", "-96", "96.0", "15", "96x15", "1025", "99999999", "a"])
def test_bad_size_is_one_sentence(text):
    with pytest.raises(ValueError, match=r"^(size|width and height) must be [^\n]*$"):
        parse_size(text)


@pytest.mark.parametrize("source", [(50, 30), (30, 50), (7, 7), (400, 16), (33, 33)])
@pytest.mark.parametrize("target", [(16, 16), (40, 20), (20, 40)])
def test_fit_keeps_the_middle_and_the_proportions(source, target):
    """A picture whose red grows from left to right and whose green grows downwards, symmetric about 127.5."""
    width, height = source
    picture = np.zeros((height, width, 3), np.uint8)
    picture[..., 0] = np.linspace(0, 255, width)[None]
    picture[..., 1] = np.linspace(0, 255, height)[:, None]
    cut = fit(Image.fromarray(picture), *target)
    assert cut.shape == (target[1], target[0], 3) and cut.dtype == np.uint8
    assert abs(cut[..., :2].astype(float).mean((0, 1)) - 127.5).max() < 12
    assert (np.diff(cut[..., 0].astype(int), axis=1) >= 0).all()
    assert (np.diff(cut[..., 1].astype(int), axis=0) >= 0).all()
    scale = max(target[0] / width, target[1] / height)
    shown = target[0] / (scale * width)
    spread = (int(cut[..., 0].max()) - int(cut[..., 0].min())) / 255
    assert abs(spread - shown) < 0.2, (spread, shown)


def test_missing_and_broken_pictures_are_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no picture 'nowhere.png'"):
        load_photo("nowhere.png")
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n but nothing else")
    with pytest.raises(ValueError, match="cannot be read as a picture"):
        load_photo(str(broken))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_any_colour_mode_becomes_rgb(tmp_path, mode):
    path = tmp_path / "picture.tif"
    Image.new("RGB", (20, 18), (200, 10, 10)).convert(mode).save(path)
    assert load_photo(str(path)).mode == "RGB"


def test_missing_package_and_wrong_content_are_refused():
    with pytest.raises(FileNotFoundError, match="the package no-such-thing is not installed"):
        package_file("no-such-thing", "file")
    with pytest.raises(FileNotFoundError, match="does not hold"):
        package_file("numpy", "numpy/no_such_file")
    with pytest.raises(ValueError, match="has sha256"):
        weight_file("numpy", "numpy/__init__.py", "0" * 64)


@pytest.mark.parametrize("name", PHOTOS)
def test_photographs_of_packages_open(name):
    try:
        photo = load_photo(name)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    assert photo.mode == "RGB" and min(photo.size) >= 300
