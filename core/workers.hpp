#pragma once
/// CPU work off the I/O thread: training steps, codecs, hashing, fsync.

#include <functional>

#include "core/clock.hpp"

namespace longhaul::core {

class workers {
public:
    virtual ~workers() = default;
    /// Runs `job` elsewhere and returns when it has ended; `job` must not throw. The I/O thread goes on meanwhile.
    /// Never cancelled half-way: what `job` refers to must live until this returns, and it returns only after the job
    /// ended (a cancelled caller therefore waits for one job: keep jobs short). `modelled` is the virtual time that the
    /// job takes in simulation, where it runs inline.
    virtual task<result<void>> run(std::function<void()> job, duration modelled) = 0;
    /// How many jobs can run at the same time.
    virtual unsigned concurrency() const = 0;
    /// Whether a job that is given now waits for others.
    virtual bool full() const = 0;
};

}  // namespace longhaul::core
