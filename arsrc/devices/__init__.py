"""Which rows a device gets, and how arrays get to devices."""
