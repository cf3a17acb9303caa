"""Captions: what an image-and-text model, or the offline describer, says about each training image."""

from ipo.captions.base import Captioner, pick_captions
from ipo.captions.load import make_captioner
from ipo.captions.made import NO_CAPTIONS, Captions, make_captions, read_captions

__all__ = ["NO_CAPTIONS", "Captioner", "Captions", "make_captioner", "make_captions", "pick_captions", "read_captions"]
