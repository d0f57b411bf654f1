"""Licences and origin of each source, and what they allow."""
