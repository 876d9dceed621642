"""Data: items of documents, TinyWorld, the readers of own data, and pictures and videos from files."""
