"""The methods that IPO is compared with, one file each, registered in the entry-point group `ipo.methods`."""
