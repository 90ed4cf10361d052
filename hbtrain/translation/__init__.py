"""Translating the texts of a corpus into other languages, with Hugging Face models on a pool of Ray actors."""
