"""From a finished run to predictions: calibrated on shots, restored from the folder, made for any pictures."""
