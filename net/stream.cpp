#include "net/stream.hpp"

namespace longhaul::net {

std::string endpoint::text() const {
    if (host.starts_with('/')) return host;
    if (host.find(':') != std::string::npos) return fmt::format("[{}]:{}", host, port);
    return fmt::format("{}:{}", host, port);
}

core::task<core::result<void>> read_exact(stream& s, core::mutable_bytes out) {
    std::size_t done = 0;
    while (done < out.size()) {
        auto got = co_await s.read_some(out.subspan(done));
        LONGHAUL_CO_TRY(got);
        if (*got == 0) {
            co_return core::fail(core::errc::closed, "the connection to {} ended {} bytes early", s.remote().text(),
                                 out.size() - done);
        }
        done += *got;
    }
    co_return core::ok();
}

core::task<core::result<void>> write_all(stream& s, core::const_bytes data) {
    while (!data.empty()) {
        auto put = co_await s.write_some(data);
        LONGHAUL_CO_TRY(put);
        data = data.subspan(*put);
    }
    co_return core::ok();
}

}  // namespace longhaul::net
