"""CLIP-like models behind one contract, the text engine and the image feature store."""
