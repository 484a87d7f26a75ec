"""Which bytes: those of files, what shows that they changed, and the addresses they are mapped to."""
