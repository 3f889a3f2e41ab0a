#include "net/channel.hpp"

namespace longhaul::net {

using core::errc;
using core::fail;
using core::result;
using core::task;

task<result<core::mutable_bytes>> channel::next_ciphertext() {
    for (;;) {
        auto found = buffer.next();
        LONGHAUL_CO_TRY(found);
        if (*found) co_return **found;
        auto got = co_await stream->read_some(buffer.space());
        LONGHAUL_CO_TRY(got);
        if (*got == 0) {
            co_return fail(errc::closed, "{} hung up without a goodbye", stream->remote().text());
        }
        count.received += *got;
        buffer.commit(*got);
    }
}

task<result<record>> channel::next_record() {
    auto ciphertext = co_await next_ciphertext();
    LONGHAUL_CO_TRY(ciphertext);
    co_return opener.open(*ciphertext);
}

task<result<void>> channel::write(core::const_bytes sealed) {
    while (!sealed.empty()) {
        auto put = co_await stream->write_some(sealed);
        LONGHAUL_CO_TRY(put);
        count.sent += *put;
        sealed = sealed.subspan(*put);
    }
    co_return core::ok();
}

}  // namespace longhaul::net
