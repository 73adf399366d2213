"""The pack: its manifest, files and codebooks, and the inputs and outputs of its graphs."""
