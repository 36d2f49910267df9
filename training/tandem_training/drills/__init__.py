"""Drills: what happens to data when processes die and disks refuse, tried on purpose. `tandem drill NAME` runs one."""
