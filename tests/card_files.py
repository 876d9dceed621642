"""Cards of checkpoints that a test has changed, with a checksum that fits them."""

import hashlib
import json


def write_sealed(path, card):
    """Write a card; its own checksum is that of its contents, so what is wrong with them comes to light."""
    fields = {name: value for name, value in card.items() if name != "card_sha256"}
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(fields | {"card_sha256": digest}))
