"""core/counter_random.hpp in Python: random numbers by position. Shared by the scripts that make golden files."""

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


def mix64(x):
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & MASK
    return x ^ (x >> 31)


def combine_key(key, part):
    return mix64((mix64((key + GOLDEN) & MASK) + GOLDEN * (part + 1)) & MASK)


random_bits = combine_key


def random_below(key, counter, bound):
    return ((random_bits(key, counter) >> 32) * bound) >> 32


def random_normal(key, counter):
    total = 0
    for word in range(3):
        bits = random_bits(key, 3 * counter + word)
        total += sum((bits >> shift) & 0xFFFF for shift in (0, 16, 32, 48))
    return (2 * total - 12 * 65535) / 131072.0
