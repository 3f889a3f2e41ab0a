#include "net/record.hpp"

#include <algorithm>
#include <array>

#include "net/printable.hpp"

namespace longhaul::net {

namespace {

constexpr std::array with_type{std::byte{0}};
constexpr std::array data_only{std::byte{1}};

/// A record's key changes before the records number `every`, 2·`every`, …
void rekey_if_due(noise::cipher_state& cipher, std::uint64_t every) {
    if (cipher.counter() != 0 && cipher.counter() % every == 0) cipher.rekey();
}

}  // namespace

record_sealer::record_sealer(noise::cipher_state cipher, std::uint64_t rekey_every)
    : cipher_(std::move(cipher)), rekey_every_(rekey_every) {
    LONGHAUL_ENSURE(rekey_every >= 1, "a key is changed after one record at least");
}

core::result<std::size_t> record_sealer::write(core::const_bytes ad, core::const_bytes plain, core::mutable_bytes out) {
    const auto length = plain.size() + noise::tag_size;
    out[0] = static_cast<std::byte>(length & 0xFFU);
    out[1] = static_cast<std::byte>(length >> 8U);
    rekey_if_due(cipher_, rekey_every_);
    LONGHAUL_TRY(cipher_.encrypt(ad, plain, out.subspan(record_prefix, length)));
    return record_prefix + length;
}

core::result<std::size_t> record_sealer::seal(std::uint8_t type, std::uint8_t flags, core::const_bytes payload,
                                              core::mutable_bytes out) {
    if (ended_) return core::fail(core::errc::closed, "nothing may be sent after the end of a connection");
    if (payload.size() > max_record_payload) {
        return core::fail(core::errc::limit, "a record of {} bytes exceeds {}", payload.size(), max_record_payload);
    }
    if (out.size() < payload.size() + record_overhead) {
        return core::fail(core::errc::limit, "a record of {} bytes does not fit into a buffer of {}", payload.size(),
                          out.size());
    }
    out[record_prefix] = static_cast<std::byte>(type);
    out[record_prefix + 1] = static_cast<std::byte>(flags);
    std::ranges::copy(payload, out.begin() + record_prefix + 2);
    return write(with_type, out.subspan(record_prefix, payload.size() + 2), out);
}

core::result<std::size_t> record_sealer::seal_data(core::const_bytes plain, core::mutable_bytes out) {
    if (ended_) return core::fail(core::errc::closed, "nothing may be sent after the end of a connection");
    if (plain.empty() || plain.size() > max_data_payload) {
        return core::fail(core::errc::limit, "a data record of {} bytes is not within 1 and {}", plain.size(),
                          max_data_payload);
    }
    if (out.size() < plain.size() + data_overhead) {
        return core::fail(core::errc::limit, "a data record of {} bytes does not fit into a buffer of {}", plain.size(),
                          out.size());
    }
    return write(data_only, plain, out);
}

core::result<core::byte_vector> record_sealer::seal_end(std::string_view reason) {
    const auto text = to_printable_utf8(reason, max_end_reason);
    core::byte_vector out(text.size() + record_overhead);
    LONGHAUL_TRY(seal(static_cast<std::uint8_t>(record_type::end), 0, core::as_bytes(text), out));
    ended_ = true;
    return out;
}

record_opener::record_opener(noise::cipher_state cipher, std::uint64_t rekey_every)
    : cipher_(std::move(cipher)), rekey_every_(rekey_every) {
    LONGHAUL_ENSURE(rekey_every >= 1, "a key is changed after one record at least");
}

core::result<void> record_opener::decrypt(core::const_bytes ad, core::const_bytes ciphertext, core::mutable_bytes out) {
    rekey_if_due(cipher_, rekey_every_);
    auto opened = cipher_.decrypt(ad, ciphertext, out);
    if (!opened) {
        poisoned_ = true;
        return core::fail(core::errc::protocol, "record {} does not authenticate: it was damaged, repeated or forged",
                          cipher_.counter());
    }
    return opened;
}

core::result<record> record_opener::open(core::mutable_bytes ciphertext) {
    if (poisoned_) return core::fail(core::errc::protocol, "an earlier record failed: the connection must be closed");
    if (ended_) return core::fail(core::errc::closed, "a record came after the end of the connection");
    if (ciphertext.size() < noise::tag_size + 2 || ciphertext.size() > max_record_ciphertext) {
        poisoned_ = true;
        return core::fail(core::errc::protocol, "a record has {} bytes, not {} to {}", ciphertext.size(),
                          noise::tag_size + 2, max_record_ciphertext);
    }
    const auto plain = ciphertext.first(ciphertext.size() - noise::tag_size);
    LONGHAUL_TRY(decrypt(with_type, ciphertext, plain));
    record r{std::to_integer<std::uint8_t>(plain[0]), std::to_integer<std::uint8_t>(plain[1]), plain.subspan(2)};
    if (r.is(record_type::end)) {
        if (r.flags != 0 || !is_printable_utf8(core::as_text(r.payload), max_end_reason)) {
            poisoned_ = true;
            return core::fail(core::errc::protocol, "an end record has flags {} and {} bytes that are no reason",
                              r.flags, r.payload.size());
        }
        ended_ = true;
    }
    return r;
}

core::result<void> record_opener::open_data(core::const_bytes ciphertext, core::mutable_bytes destination) {
    if (poisoned_) return core::fail(core::errc::protocol, "an earlier record failed: the connection must be closed");
    if (ended_) return core::fail(core::errc::closed, "a record came after the end of the connection");
    if (ciphertext.size() <= noise::tag_size || ciphertext.size() > max_record_ciphertext ||
        destination.size() != ciphertext.size() - noise::tag_size) {
        poisoned_ = true;
        return core::fail(core::errc::protocol,
                          "a data record of {} encrypted bytes came where {} bytes were announced", ciphertext.size(),
                          destination.size());
    }
    return decrypt(data_only, ciphertext, destination);
}

record_buffer::record_buffer() : buffer_(2 * (record_prefix + max_record_ciphertext)) {}

core::mutable_bytes record_buffer::space() {
    // Moved only when less than a full record's room is left, so that each byte is moved at most once or so.
    if (begin_ == end_) begin_ = end_ = 0;
    if (begin_ != 0 && buffer_.size() - end_ < record_prefix + max_record_ciphertext) {
        std::copy(buffer_.begin() + static_cast<std::ptrdiff_t>(begin_),
                  buffer_.begin() + static_cast<std::ptrdiff_t>(end_), buffer_.begin());
        end_ -= begin_;
        begin_ = 0;
    }
    return std::span(buffer_).subspan(end_);
}

void record_buffer::commit(std::size_t n) {
    LONGHAUL_ENSURE(n <= buffer_.size() - end_, "more was committed than there was space for");
    end_ += n;
}

core::result<std::optional<core::mutable_bytes>> record_buffer::next() {
    if (end_ - begin_ < record_prefix) return std::nullopt;
    const auto length =
        std::to_integer<std::size_t>(buffer_[begin_]) | (std::to_integer<std::size_t>(buffer_[begin_ + 1]) << 8U);
    if (length <= noise::tag_size) {
        return core::fail(core::errc::protocol, "a record announces {} bytes, fewer than any record has", length);
    }
    if (end_ - begin_ - record_prefix < length) return std::nullopt;
    const auto ciphertext = std::span(buffer_).subspan(begin_ + record_prefix, length);
    begin_ += record_prefix + length;
    return ciphertext;
}

}  // namespace longhaul::net
