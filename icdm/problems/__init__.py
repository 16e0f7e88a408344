"""Decision problems as immutable pytrees of arrays, and the families that sample them."""
