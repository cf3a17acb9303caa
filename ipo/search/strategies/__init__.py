"""The strategies that ship with `ipo`, one file each, found by the entry points `ipo.strategies`."""
