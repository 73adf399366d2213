"""Files on disk: atomic and temporary files; safetensors, npz and protobuf."""
