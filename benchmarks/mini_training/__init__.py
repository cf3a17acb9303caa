"""How the stand-in `mini` is made and measured: pictures from packages by name, captions, training, tables."""
