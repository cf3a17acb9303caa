"""Language models behind one contract: OpenAI-compatible servers and local models."""
