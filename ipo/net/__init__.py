"""Addresses, proxies, time limits, and the Hugging Face hub."""
