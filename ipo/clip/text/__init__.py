"""The text engine: class names and prompts to features, each shared part encoded once."""
