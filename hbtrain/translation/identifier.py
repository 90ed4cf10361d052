"""Telling languages apart: py3langid, a naive Bayes model over byte n-grams (Lui and Baldwin, 2012)."""

from __future__ import annotations

from typing import Any


class Identifier:
    """97 languages; its model of 5 MB comes with the package, nothing is fetched."""

    def __init__(self) -> None:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier

        self._model: Any = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)

    def probability(self, text: str, language: str) -> float | None:
        """How likely a text is in a language (ISO 639-1), from 0 to 1; None for a language that the model lacks."""
        return next((round(p, 4) for code, p in self._model.rank(text) if code == language), None)
