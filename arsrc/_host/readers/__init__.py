"""How: records from files, by a memory map, in large pieces, or through array_record."""
