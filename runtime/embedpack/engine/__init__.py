"""Graph execution with onnxruntime: sessions, batching, memory plan, prepacked graphs."""
