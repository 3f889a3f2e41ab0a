#!/usr/bin/env python3
"""Talks to longhaul's C++ over a pipe with an implementation that is not ours.

    noise_interop.py PATH/TO/noise_interop

The Noise handshakes are PyPI's `noiseprotocol`; hello, payloads and records are written here from net/PROTOCOL.md
alone, so the document is tested too. Both sides are played by both ends.
"""

import os
import struct
import subprocess
import sys

try:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
    from noise.connection import Keypair, NoiseConnection
    from noise.state import SymmetricState
except ImportError as error:
    print(f"skipped: {error} (pip install noiseprotocol)")
    sys.exit(0)

split = SymmetricState.split


def recording_split(self):
    """noiseprotocol has no exporter: keep the third output of the HKDF that splits, and the keys as they are used."""
    protocol = self.noise_protocol
    keys = protocol.hkdf(self.ck, b"", 3)
    protocol.exporter = keys[2]
    protocol.keys = keys[:2] if protocol.initiator else (keys[1], keys[0])
    protocol.remote = bytes(protocol.handshake_state.rs.public_bytes) if protocol.pattern.name.startswith("XX") else b""
    return split(self)


SymmetricState.split = recording_split


def check(holds, what):
    if not holds:
        raise SystemExit(f"noise_interop: {what}")


class Pipe:
    """The C++ end as a child."""

    def __init__(self, program, *arguments):
        self.child = subprocess.Popen([program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def write(self, data):
        self.child.stdin.write(data)
        self.child.stdin.flush()

    def read(self, n):
        data = self.child.stdout.read(n)
        if len(data) != n:
            check(False, f"the C++ end ended early (exit code {self.child.wait(30)})")
        return data

    def write_frame(self, data):
        self.write(struct.pack("<H", len(data)) + data)

    def read_frame(self):
        return self.read(struct.unpack("<H", self.read(2))[0])

    def end(self):
        check(self.child.stdout.read() == b"", "the C++ end said more than it should")
        check(self.child.wait(30) == 0, "the C++ end failed")


def noise(pattern, initiator, prologue, psk, static=None):
    n = NoiseConnection.from_name(f"Noise_{pattern}_25519_ChaChaPoly_SHA256".encode())
    n.set_psks(psk=psk)
    n.set_prologue(prologue)
    if pattern.startswith("XX"):
        n.set_keypair_from_private_bytes(Keypair.STATIC, static or os.urandom(32))
    n.set_as_initiator() if initiator else n.set_as_responder()
    n.start_handshake()
    return n


def handshake(pipe, n, initiator, payload_of, on_payload):
    for i in range(9):
        if n.handshake_finished:
            return
        if (i % 2 == 0) == initiator:
            pipe.write_frame(bytes(n.write_message(payload_of(i))))
        else:
            on_payload(i, bytes(n.read_message(pipe.read_frame())))
    check(False, "the handshake does not end")


def plain_noise(program, pattern, initiator):
    prologue, psk = os.urandom(40), os.urandom(32)
    pipe = Pipe(program, "noise", pattern, "responder" if initiator else "initiator", prologue.hex(), psk.hex())
    n = noise(pattern, initiator, prologue, psk)
    text = "handshake payload {}".format
    handshake(pipe, n, initiator, lambda i: text(i).encode(),
              lambda i, got: check(got == text(i).encode(), f"handshake payload {i} differs"))
    for i in range(4):
        if i == 2:
            n.rekey_inbound_cipher()
            n.rekey_outbound_cipher()
        line = f"transport message {i}".encode()
        if initiator:
            pipe.write_frame(n.encrypt(line))
            check(n.decrypt(pipe.read_frame()) == line[::-1], "an answer differs")
        else:
            got = n.decrypt(pipe.read_frame())
            check(got == line, "a message differs")
            pipe.write_frame(n.encrypt(got[::-1]))
    check(pipe.read_frame() == n.noise_protocol.exporter, "the exporters differ")
    check(pipe.read_frame() == bytes(n.get_handshake_hash()), "the handshake hashes differ")
    pipe.end()


# From here on: net/PROTOCOL.md.


def hello(role, connection, run, session):
    """§2."""
    return b"LONGHAUL" + struct.pack("<HHB3xI", 1, 1, role, connection) + run + session + bytes(28)


def greet(pipe, initiator, ours):
    """§1, §2: the prologue. Our hellos are equal here, for the run is the same and the rest is echoed."""
    if initiator:
        pipe.write(ours)
    theirs = pipe.read(96)
    check(theirs == ours, f"the C++ end's hello is {theirs.hex()}")
    if not initiator:
        pipe.write(ours)
    return ours + theirs


def hkdf(n, key, info):
    return n.noise_protocol.hkdf(key, info, 2)[0]


class Records:
    """§5, without rekey (tests/unit/net/record_test.cpp has that)."""

    def __init__(self, pipe, keys):
        self.pipe, self.out, self.inward = pipe, ChaCha20Poly1305(keys[0]), ChaCha20Poly1305(keys[1])
        self.sent = self.received = 0

    def send(self, plain, ad=b"\0"):
        self.pipe.write_frame(self.out.encrypt(struct.pack("<4xQ", self.sent), plain, ad))
        self.sent += 1

    def receive(self, ad=b"\0"):
        plain = self.inward.decrypt(struct.pack("<4xQ", self.received), self.pipe.read_frame(), ad)
        self.received += 1
        return plain

    def receive_typed(self, kind, flags=7):
        plain = self.receive()
        check(plain[:2] == bytes([kind, flags]), f"a record has type and flags {plain[:2].hex()}")
        return plain[2:]


def whole_protocol(program, initiator):
    run, psk = os.urandom(32), os.urandom(32)
    pipe = Pipe(program, "longhaul", "responder" if initiator else "initiator", run.hex(), psk.hex())
    prologue = greet(pipe, initiator, hello(1, 0, run, bytes(16)))
    identity, static = Ed25519PrivateKey.generate(), os.urandom(32)
    n = noise("XXpsk0", initiator, prologue, psk, static)
    own_static = bytes(n.noise_protocol.keypairs["s"].public_bytes)
    statement = b"longhaul-static-v1\0" + run
    name = "the Python end ✓".encode()
    host = b"node.example.org"
    signature = identity.sign(statement + own_static + bytes([not initiator]))
    describe = (identity.public_key().public_bytes_raw() + signature
                + struct.pack("<QQB", 17, 9, len(name)) + name + struct.pack("<BB", 1, len(host)) + host
                + struct.pack("<H", 65535) + (b"\1" + bytes(32) if initiator else b"\0"))
    seen = {}

    def on_payload(i, got):
        check((got == b"") == (i == 0), f"message {i + 1} has a payload of {len(got)} bytes")
        if i > 0:
            seen["payload"] = got

    handshake(pipe, n, initiator, lambda i: b"" if i == 0 else describe, on_payload)
    got = seen["payload"]
    key, signature, rest = got[:32], got[32:96], got[96:]
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(
            signature, statement + n.noise_protocol.remote + bytes([initiator]))
    except InvalidSignature:
        check(False, "the C++ end did not sign its static key")
    their_name = "the C++ end ✓".encode()
    expected = (struct.pack("<QQB", 41, 6, len(their_name)) + their_name
                + b"\2" + b"\x09192.0.2.7" + struct.pack("<H", 7400)
                + b"\3::1" + struct.pack("<H", 1) + (b"\0" if initiator else b"\1" + b"\x55" * 32))
    check(rest == expected, f"the C++ end describes itself as {rest.hex()}")

    records = Records(pipe, n.noise_protocol.keys)
    sentence = b"only trying"
    if initiator:
        check(records.receive_typed(2) == bytes([3, len(sentence)]) + sentence, "a verdict differs")
    else:
        records.send(b"\2\0" + bytes([3, len(sentence)]) + sentence)
    records.send(b"\x10\0" + key)
    check(records.receive_typed(16) == identity.public_key().public_bytes_raw(), "the C++ end took us for another")
    records.send(b"\1\0control is over")
    check(records.receive_typed(1, 0) == b"control is over", "an end differs")

    exporter = n.noise_protocol.exporter
    session = hkdf(n, exporter, b"longhaul-session")[:16]
    prologue = greet(pipe, initiator, hello(2, 3, run, session))
    bulk = noise("NNpsk0", initiator, prologue, hkdf(n, exporter, b"longhaul-bulk" + struct.pack("<BI", 0, 3)))
    handshake(pipe, bulk, initiator, lambda i: b"", lambda i, got: check(got == b"", "a bulk message has a payload"))
    records = Records(pipe, bulk.noise_protocol.keys)
    data = records.receive(b"\1")
    check(data == b"\x5a" * 100, "data differ")
    records.send(data, b"\1")
    pipe.end()


def main():
    program = sys.argv[1]
    for initiator in (True, False):
        ours = "initiator" if initiator else "responder"
        for pattern in ("XXpsk0", "NNpsk0"):
            plain_noise(program, pattern, initiator)
            print(f"ok: {pattern}, noiseprotocol as {ours}")
        whole_protocol(program, initiator)
        print(f"ok: hello, control, verdict, records, bulk; Python as {ours}")


if __name__ == "__main__":
    main()
