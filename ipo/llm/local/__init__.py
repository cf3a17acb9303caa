"""Language models on this machine: transformers and llama.cpp, held to a grammar."""
