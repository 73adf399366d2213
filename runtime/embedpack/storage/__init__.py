"""Bytes on disk: atomic writes, safetensors files."""
