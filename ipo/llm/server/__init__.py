"""Servers that speak OpenAI's chat completions: asked within bounds, and read whatever they answer."""
