"""Parts of ONNX graphs, below the families: builder, weights formats, towers, heads.

Nothing here imports a family or reads a config.json. Towers are shared by families, except `towers.qwen_vision`, which
builds the vision tower of Qwen2.5-VL only.
"""
