"""One forward, read or changed: the only wing that opens traces."""
