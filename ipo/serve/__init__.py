"""Runs in a browser: a local page over all run folders."""
