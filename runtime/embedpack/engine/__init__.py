"""Graph execution with onnxruntime: sessions, batching, memory plan, prepared graphs."""
