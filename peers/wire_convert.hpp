#pragma once
/// Between the protobuf messages of peers/messages.proto and our structs; for records.cpp, messages.cpp, ledger.cpp and
/// payload.cpp alone. `from` functions check what a stranger sent.

#include "peers/messages.pb.h"
#include "peers/records.hpp"

namespace longhaul::peers {

/// For std::visit: a function for each kind.
template <typename... F>
struct overloaded : F... {
    using F::operator()...;
};

/// Serialises any message; deterministic because no message has a map or unknown fields of ours.
template <typename Proto>
core::byte_vector to_bytes(const Proto& p) {
    core::byte_vector out(p.ByteSizeLong());
    p.SerializeToArray(out.data(), static_cast<int>(out.size()));
    return out;
}
/// Parses at most `max` bytes; errc::limit, errc::malformed.
template <typename Proto>
core::result<Proto> proto_from(core::const_bytes bytes, std::size_t max, const char* what) {
    if (bytes.size() > max) {
        return core::fail(core::errc::limit, "a {} of {} bytes exceeds the limit of {}", what, bytes.size(), max);
    }
    Proto p;
    if (!p.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
        return core::fail(core::errc::malformed, "a {} of {} bytes does not parse", what, bytes.size());
    }
    return p;
}

std::string text_of(const core::digest& d);
core::result<core::digest> digest_from(const std::string& bytes, const char* what);
/// Bounded, valid as one line of text: control characters are refused.
core::result<std::string> line_from(const std::string& text, std::size_t max, const char* what);
core::result<std::vector<net::endpoint>> endpoints_from(const google::protobuf::RepeatedPtrField<wire::Endpoint>& in);
void put_endpoints(const std::vector<net::endpoint>& in, google::protobuf::RepeatedPtrField<wire::Endpoint>* out);
/// Strictly increasing admission numbers.
core::result<std::vector<peer_number>> numbers_from(const google::protobuf::RepeatedField<std::uint32_t>& in,
                                                    const char* what);
core::result<std::vector<contribution>> contributions_from(
    const google::protobuf::RepeatedPtrField<wire::Contribution>& in);
void put_contributions(const std::vector<contribution>& in,
                       google::protobuf::RepeatedPtrField<wire::Contribution>* out);

// raft_convert.cpp
wire::Voters to_proto(const raft::configuration& c);
/// Not checked beyond the keys' sizes: raft::check looks at all of it.
core::result<raft::configuration> configuration_from(const wire::Voters& p);
wire::Raft to_proto(const raft::message& m);
/// errc::malformed, or raft::check's errc::protocol.
core::result<raft::message> from(const wire::Raft& p);

wire::Admit to_proto(const admit_record& r);
wire::Round to_proto(const round_record& r);
wire::Plan to_proto(const round_plan& r);
wire::Commit to_proto(const commit_record& r);
core::result<admit_record> from(const wire::Admit& p);
core::result<round_record> from(const wire::Round& p);
core::result<round_plan> from(const wire::Plan& p);
core::result<commit_record> from(const wire::Commit& p);

}  // namespace longhaul::peers
