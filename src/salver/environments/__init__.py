"""The packages a release needs, found from what its model imports and pinned to what is installed here."""
