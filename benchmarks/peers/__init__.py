"""Other programs that embed texts, each in an environment of its own; one module per peer.

The modules that run in such an environment (`job`, `worker`, `pooled` and the peers) do not import embedpack.
"""
