#pragma once
/// The production implementation of core/workers.hpp: a small pool of threads.

#include <memory>

#include "core/workers.hpp"

namespace longhaul::core {

/// At most `threads` threads (at least one), started when there is work for them. Jobs start in the order in which they
/// were given. A job's caller resumes on its own executor, and only after the job ended, cancelled or not; a caller
/// that is cancelled already before its job was queued gets errc::cancelled and the job never runs. The executors of
/// all callers must outlive this object. Its destructor waits for the jobs that run and drops those that did not start.
class thread_workers final : public workers {
public:
    explicit thread_workers(unsigned threads);
    ~thread_workers() override;
    thread_workers(const thread_workers&) = delete;
    thread_workers& operator=(const thread_workers&) = delete;

    /// errc::internal when the job threw, errc::io when no thread can be started.
    task<result<void>> run(std::function<void()> job, duration modelled) override;
    unsigned concurrency() const override;
    bool full() const override;
    /// Threads started so far.
    unsigned started() const;

private:
    struct pool;
    std::unique_ptr<pool> pool_;
};

}  // namespace longhaul::core
