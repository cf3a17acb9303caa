"""What a run found, in the forms that other programs read: texts, code, and classifiers as tensors."""
