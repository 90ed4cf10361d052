"""Translating the texts of a corpus: what to translate, how models are asked, what is accepted; no torch, no ray."""
