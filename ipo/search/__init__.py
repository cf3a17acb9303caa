"""The search: an LLM proposes prompts, CLIP scores them, the scored history goes back to the LLM."""
