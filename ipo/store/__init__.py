"""Files and the cache: everything that is read from or written to the disk goes through here."""
