"""How often look-ups fire otherwise: counted, stored, and written into docs/fast.md."""
