"""How pictures are read and written: formats, sizes, turns, and several threads for a batch."""
