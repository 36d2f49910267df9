"""Work on whole stores: check and repair, join and part them, cut and rename episodes, delete and compact.

Nothing here changes a store that it reads but what its name says. New stores, and old ones that are written anew, grow
beside their place and take it in one step, so that a crash at any point leaves what was there or what was to come.
Everything that is changed on the disk goes through ``tandem_datasets.files``.
"""
