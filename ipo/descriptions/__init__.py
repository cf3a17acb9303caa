"""Texts about classes: the file that holds them, and how a language model is asked for them."""

from ipo.descriptions.file import Descriptions, read_descriptions, write_descriptions

__all__ = ["Descriptions", "read_descriptions", "write_descriptions"]
