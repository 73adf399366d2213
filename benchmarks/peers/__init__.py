"""Other programs that embed texts, each in an environment of its own; one file a peer.

What runs inside such an environment (`job`, `worker`, `pooled` and the peers) imports nothing of embedpack.
"""
