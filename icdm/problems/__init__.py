"""What is decided: decision problems as immutable pytrees of arrays, and families that sample them."""
