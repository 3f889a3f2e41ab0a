#pragma once
/// The aggregate of a committed round from several of those who hold it.

#include "peers/aggregate.hpp"
#include "peers/download.hpp"

namespace longhaul::peers {

/// errc::not_found: nobody holds it; otherwise why the last of them did not give it.
core::task<core::result<shared_aggregate>> download_aggregate(node& n, donors_question holders,
                                                              std::uint64_t generation, commit_record commit);

}  // namespace longhaul::peers
