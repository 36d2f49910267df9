"""Other dataset formats, one module each. Each imports what it needs only when it is called."""
