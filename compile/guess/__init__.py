"""Guess a ModelSpec from what an ONNX file shows: shapes, the ends of its graph, its weights, what exporters noted."""

from compile.guess.clue import Clue, Confidence, Guess
from compile.guess.spec import guess_spec

__all__ = ["Clue", "Confidence", "Guess", "guess_spec"]
