"""Files as such: written whole or not at all, locked, unpacked within bounds; strict JSON; tables."""
