"""Human-readable prompts for CLIP-like models, found by a language model (IPO, arXiv 2410.15397)."""

__version__ = "0.1.0"
