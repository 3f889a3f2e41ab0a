#!/usr/bin/env python3
"""Makes tests/golden/noise_xxpsk0.json with PyPI's `noiseprotocol`, an implementation that is not ours.

The public vectors lack plain XXpsk0, and none shows a rekey or the exporter (the third output of the HKDF that splits
the final chaining key). Keys are fixed, so the file comes out the same each time:

    .venv/bin/python tests/golden/make_noise_xxpsk0.py > tests/golden/noise_xxpsk0.json
"""

import json

from noise.connection import Keypair, NoiseConnection
from noise.state import SymmetricState

exporters = []
split = SymmetricState.split


def recording_split(self):
    exporters.append(self.noise_protocol.hkdf(self.ck, b"", 3)[2])
    return split(self)


SymmetricState.split = recording_split

prologue = b"longhaul golden prologue"
psk = bytes(range(32))
keys = {name: bytes((start + 5 * i) % 256 for i in range(32)) for name, start in
        (("init_static", 1), ("init_ephemeral", 2), ("resp_static", 3), ("resp_ephemeral", 4))}
payloads = [b"one", b"", b"third, with the token", b"from the responder", b"from the initiator", b"", b"x" * 300]


def end(who):
    c = NoiseConnection.from_name(b"Noise_XXpsk0_25519_ChaChaPoly_SHA256")
    c.set_psks(psk=psk)
    c.set_prologue(prologue)
    c.set_keypair_from_private_bytes(Keypair.STATIC, keys[who + "_static"])
    c.set_keypair_from_private_bytes(Keypair.EPHEMERAL, keys[who + "_ephemeral"])
    c.set_as_initiator() if who == "init" else c.set_as_responder()
    c.start_handshake()
    return c


ends = [end("init"), end("resp")]
messages = []


def pass_on(index, payload):
    writer, reader = ends[index % 2], ends[1 - index % 2]
    if writer.handshake_finished:
        ciphertext = writer.encrypt(payload)
        assert reader.decrypt(ciphertext) == payload
    else:
        ciphertext = bytes(writer.write_message(payload))
        assert bytes(reader.read_message(ciphertext)) == payload
    messages.append({"payload": payload.hex(), "ciphertext": ciphertext.hex()})


for i, payload in enumerate(payloads):
    pass_on(i, payload)
assert ends[0].get_handshake_hash() == ends[1].get_handshake_hash() and exporters[0] == exporters[1]
rekey_before = len(messages)
for c in ends:
    c.rekey_inbound_cipher()
    c.rekey_outbound_cipher()
pass_on(rekey_before, b"under the next key")
pass_on(rekey_before + 1, b"and so is this")

print(json.dumps({"vectors": [{
    "protocol_name": "Noise_XXpsk0_25519_ChaChaPoly_SHA256",
    "init_prologue": prologue.hex(), "resp_prologue": prologue.hex(),
    "init_psks": [psk.hex()], "resp_psks": [psk.hex()],
    **{name: key.hex() for name, key in keys.items()},
    "handshake_hash": bytes(ends[0].get_handshake_hash()).hex(),
    "exporter": exporters[0].hex(),
    "rekey_before_message": rekey_before,
    "messages": messages,
    "source": "noiseprotocol 0.3.1 by tests/golden/make_noise_xxpsk0.py",
}]}, indent=1))
