"""The bytes: files, what shows that they changed, and the addresses they are mapped to."""
