#pragma once
/// Who of several donors is asked for which chunks. Pure: times in, pieces out.
///
/// Each donor is given the next piece when it has brought one, so that they share the work in proportion to what their
/// lines carry. When all pieces are under way, one that takes clearly longer than a donor without work needs for a
/// piece is asked of that one, too; the first to bring it counts.

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "core/clock.hpp"

namespace longhaul::peers {

/// A piece: consecutive chunks.
struct chunk_span {
    std::uint32_t first = 0, count = 0;
    bool operator==(const chunk_span&) const = default;
};

class download_plan {
public:
    /// `per_piece` at least 1.
    download_plan(std::uint32_t chunks, std::uint32_t per_piece);

    /// What to ask of that donor now; it may have several pieces under way. Nothing: ask again later, or when a piece
    /// has arrived or was given up.
    std::optional<chunk_span> next(std::uint32_t donor, core::time_point now);
    /// That donor has brought it, and it was checked.
    void arrived(std::uint32_t donor, const chunk_span& p, core::time_point now);
    /// That donor will not bring it.
    void given_up(std::uint32_t donor, const chunk_span& p);
    bool has(const chunk_span& p) const { return parts_[p.first / per_piece_].here; }
    bool complete() const { return left_ == 0; }

private:
    struct part {
        chunk_span piece;
        std::map<std::uint32_t, core::time_point> asked;  ///< who was asked and has not brought it, and when
        bool here = false;
    };
    core::duration patience(std::uint32_t donor) const;

    std::uint32_t per_piece_;
    std::vector<part> parts_;
    std::size_t left_ = 0;
    std::map<std::uint32_t, double> seconds_;  ///< of each donor's pieces, the mean of the latest
};

}  // namespace longhaul::peers
