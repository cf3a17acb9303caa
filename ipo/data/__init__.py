"""Datasets: catalogue, splits, few-shot draws, downloads and own pictures."""
