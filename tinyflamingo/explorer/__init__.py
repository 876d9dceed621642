"""The explorer: Flamingo in a browser tab, with its masks and gates under the reader's hand (docs/explorer.md)."""
