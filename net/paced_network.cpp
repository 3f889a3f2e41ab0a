#include "net/paced_network.hpp"

#include "core/task.hpp"

namespace longhaul::net {

using core::result;
using core::task;

namespace {

class paced_stream final : public stream {
public:
    paced_stream(std::unique_ptr<stream> under, core::clock& clock, pacer& up, pacer& down, stream_purpose purpose)
        : under_(std::move(under)), clock_(clock), up_(up), down_(down), purpose_(purpose) {}

    task<result<std::size_t>> read_some(core::mutable_bytes out) override {
        if (waits()) {
            out = out.first(std::min(out.size(), down_.portion()));
            auto slept = co_await clock_.sleep_until(read_at_);
            LONGHAUL_CO_TRY(slept);
        }
        auto got = co_await under_->read_some(out);
        LONGHAUL_CO_TRY(got);
        const auto now = clock_.now();
        // What arrived has arrived: its price is that the next read waits, so that the kernel's window closes.
        read_at_ = down_.took(now, with_headers(*got));
        up_.take(now, acknowledgements(*got));
        co_return got;
    }

    task<result<std::size_t>> write_some(core::const_bytes data) override {
        if (waits()) data = data.first(std::min(data.size(), up_.portion()));
        const auto cost = with_headers(data.size());
        const auto at = up_.take(clock_.now(), cost);
        if (waits()) {
            auto slept = co_await clock_.sleep_until(at);
            if (!slept) up_.give_back(cost);
            LONGHAUL_CO_TRY(slept);
        }
        auto put = co_await under_->write_some(data);
        up_.give_back(cost - (put ? with_headers(*put) : 0));
        LONGHAUL_CO_TRY(put);
        down_.take(clock_.now(), acknowledgements(*put));
        co_return put;
    }

    task<result<void>> writable() override { return under_->writable(); }
    void close() override { under_->close(); }
    endpoint local() const override { return under_->local(); }
    endpoint remote() const override { return under_->remote(); }
    std::optional<stream_info> info() const override { return under_->info(); }
    void set_pace(double bytes_per_second) override { under_->set_pace(bytes_per_second); }
    void set_purpose(stream_purpose purpose) override {
        purpose_ = purpose;
        under_->set_purpose(purpose);
    }

private:
    bool waits() const { return purpose_ == stream_purpose::bulk; }

    std::unique_ptr<stream> under_;
    core::clock& clock_;
    pacer& up_;
    pacer& down_;
    stream_purpose purpose_;
    core::time_point read_at_{};
};

class paced_listener final : public listener {
public:
    paced_listener(std::unique_ptr<listener> under, core::clock& clock, pacer& up, pacer& down)
        : under_(std::move(under)), clock_(clock), up_(up), down_(down) {}
    task<result<std::unique_ptr<stream>>> accept() override {
        auto made = co_await under_->accept();
        LONGHAUL_CO_TRY(made);
        co_return std::make_unique<paced_stream>(std::move(*made), clock_, up_, down_, stream_purpose::control);
    }
    endpoint local() const override { return under_->local(); }
    void close() override { under_->close(); }

private:
    std::unique_ptr<listener> under_;
    core::clock& clock_;
    pacer& up_;
    pacer& down_;
};

bool is_unix(const endpoint& e) { return e.host.starts_with('/'); }

}  // namespace

paced_network::paced_network(network& under, core::clock& clock, core::bit_rate up, core::bit_rate down)
    : under_(under), clock_(clock), up_(up.bytes_per_second()), down_(down.bytes_per_second()) {}

task<result<std::unique_ptr<stream>>> paced_network::connect(endpoint to, stream_purpose purpose) {
    const bool counted = !is_unix(to) && (up_.limits() || down_.limits());
    auto connecting = under_.connect(std::move(to), purpose);
    auto made = co_await std::move(connecting);
    if (!made || !counted) co_return made;
    co_return std::make_unique<paced_stream>(std::move(*made), clock_, up_, down_, purpose);
}

result<std::unique_ptr<listener>> paced_network::listen(endpoint at) {
    const bool counted = !is_unix(at) && (up_.limits() || down_.limits());
    LONGHAUL_TRY_ASSIGN(auto made, under_.listen(std::move(at)));
    if (!counted) return made;
    return std::make_unique<paced_listener>(std::move(made), clock_, up_, down_);
}

}  // namespace longhaul::net
