"""Pieces that graphs are built from. They know onnx operators and no model family."""
