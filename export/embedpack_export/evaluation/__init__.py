"""How much of a model a pack keeps: real texts with known answers, each figure beside that of the reference."""
