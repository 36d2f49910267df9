"""Ground floor: the Embodiment contract, what one step and one episode are, and the episode store.

Leans on numpy and zarr only, and on no other Tandem package; everything else leans on it.
"""
