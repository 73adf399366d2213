"""Transformer towers as ONNX graphs: encoder, decoder, vision."""
