"""The instruction set that is built from the CLDR tables of Babel, and its vocabulary."""
