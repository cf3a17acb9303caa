"""Datasets of one's own: folders, tables, shards and datasets of the hub."""
