"""Captions: what an image-and-text model, or the offline describer, says about each training image."""

from ipo.captions.base import Captioner, pick_captions
from ipo.captions.load import make_captioner

__all__ = ["Captioner", "make_captioner", "pick_captions"]
