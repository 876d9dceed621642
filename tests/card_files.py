"""Cards of checkpoints that a test has changed, with a checksum that fits them."""

import hashlib
import json

from tinyflamingo.checkpoint import SEALED


def write_sealed(path, card):
    """Write a card; its own checksum is that of its contents, so what is wrong with them comes to light."""
    fields = json.dumps([card[name] for name in SEALED], sort_keys=True)
    path.write_text(json.dumps(card | {"card_sha256": hashlib.sha256(fields.encode()).hexdigest()}))
