#pragma once
/// The exchange of one outer step: payloads as signed chunks, summed and passed on chunk by chunk while later ones are
/// still under way (DESIGN §5, "Exchange modes"). It knows neither the log nor the training: peers/member.cpp and
/// `bench allreduce` drive the same code. docs/EXCHANGE.md shows how the streams go.

#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <span>

#include "core/task.hpp"
#include "net/environment.hpp"
#include "net/link.hpp"
#include "optim/robust.hpp"
#include "peers/aggregate.hpp"
#include "peers/line_rate.hpp"

namespace longhaul::peers {

/// What the exchange needs of its node. Everything is called on the I/O thread.
class exchange_host {
public:
    virtual ~exchange_host() = default;
    virtual net::environment& env() = 0;
    virtual const net::identity& identity() const = 0;
    virtual core::digest run() const = 0;
    virtual peer_number self() const = 0;
    /// What a round exchanges: the model, or a fragment of it.
    virtual const core::tensor_manifest& tensors(std::uint64_t round) const = 0;
    /// Of the largest of those.
    virtual std::uint64_t most_elements() const = 0;
    /// How contributions become one; the same on every member.
    virtual optim::aggregation aggregation() const { return optim::aggregation::mean; }
    /// The link with that peer, or null.
    virtual std::shared_ptr<net::link> link_of(peer_number who) const = 0;
    /// Its key, or null for a stranger.
    virtual const net::peer_key* key_of(peer_number who) const = 0;
    /// Where the exchange's tasks live; it outlives the exchange's use.
    virtual core::scope& tasks() = 0;
    /// Notified when a payload or the aggregate is complete, and by the host when a link came up.
    virtual core::wakeup& changed() = 0;
    virtual void report(const core::error& e, std::string_view doing_what) = 0;
    /// That peer sent or signed what cannot be true, which is proven: to be reported, and it to be cut off.
    virtual void caught(const net::peer_key& who, const core::error& lie, std::string_view doing_what) = 0;
    /// Offers that were left for later may be taken now.
    virtual void reconsider() = 0;
};

/// One attempt of a round, as ROUND fixes it. `contributors` are summed in this order.
struct exchange_terms {
    std::uint64_t generation = 0;
    std::uint64_t round = 0;
    std::uint32_t attempt = 0;
    std::vector<peer_number> members;  ///< sorted
    std::vector<peer_number> contributors;
    std::string codec;
    exchange_plan plan;
    std::uint64_t max_steps = ~std::uint64_t{0};  ///< that a contributor may claim
    /// The model is exchanged so many times, one after another, and the results add up: no shards then.
    std::uint32_t exchanges = 1;
    std::uint32_t staleness = 0;  ///< of these, so many are under way at a time, beside the latest
    bool operator==(const exchange_terms&) const = default;
};

/// The chunks of shard `shard` of a plan: all of the grid without shards; otherwise the shares in turn, cut off at its
/// end, and the last one takes the rest.
struct chunk_range {
    std::uint32_t first = 0, count = 0;
};
chunk_range range_of(const exchange_plan& plan, std::uint32_t shard, std::uint32_t chunks);
/// Chunks of a payload in these terms; 0 when their codec is unknown.
std::uint32_t chunks_of(const exchange_terms& t, std::uint64_t elements);
/// Memory for a window of so many chunks of a stream: wherever they begin, and the rest of the segment behind them.
std::uint64_t window_bytes(std::uint64_t largest_frame, std::uint32_t chunks);
inline std::uint32_t shards_of(const exchange_plan& plan) {
    return plan.shards.empty() ? 1 : static_cast<std::uint32_t>(plan.shards.size());
}
/// Who gets a stream from whom, when all who are to hold it are `wanted`: to → from, helpers included. A plan whose
/// relays run in a circle gives those directly.
std::map<peer_number, peer_number> tree_of(const exchange_plan& plan, peer_number source,
                                           std::span<const peer_number> wanted);

/// Encodes a range of the model into the bytes of a chunk; called on the workers, once for each range, in any order.
using range_encoder = std::function<core::result<void>(const compress::range& r, core::mutable_bytes out)>;

/// Whether an aggregate is so small that it takes round trips rather than bytes to fetch: it goes whole, and several at
/// once.
constexpr bool goes_whole(std::uint64_t elements) { return elements * sizeof(float) <= (1 << 20); }
/// Aggregates that are kept for those who missed some. Of small ones more: whoever was restarted goes on from its last
/// checkpoint, and a whole state would take it more round trips than all that it lacks.
constexpr std::size_t retained_aggregates(std::uint64_t elements) { return goes_whole(elements) ? 8 : 4; }

class exchange {
public:
    /// Chunks that one job sums: few enough to go on soon, enough to be worth a job.
    static constexpr std::uint32_t batch = 8;

    /// `host` must outlive it.
    explicit exchange(exchange_host& host);
    exchange(const exchange&) = delete;
    exchange& operator=(const exchange&) = delete;

    /// This attempt is open now. Its round's streams are kept until the round after the next opens: a commit may come
    /// before all of it is here.
    void open(exchange_terms terms);
    const exchange_terms& terms() const { return terms_; }

    /// Offers this node's payload to those who are to have it, before there is one: that of the exchange `step` of the
    /// round and of those soon after it.
    void prepare(std::uint32_t step = 0);
    /// Encodes, signs and sends this node's payload, or what it has for the exchange `step` of the round, chunk by
    /// chunk; returns when all of it is signed. What `encode` refers to must live until then; its error is passed on.
    /// What it returns names the payload after the last exchange.
    core::task<core::result<contribution>> contribute(range_encoder encode, work_done work, std::uint32_t step = 0);
    /// The same with these values (the manifest's elements), which must live as long. errc::limit: one that the codec
    /// cannot carry.
    core::task<core::result<contribution>> contribute(std::span<const float> values, work_done work);
    /// There will be no payload: takes the offers back. A payload that was made stays.
    void withdraw();

    enum class verdict { taken, later, refused };
    /// A transfer that `sender` offers: accepts it, leaves it for later, or refuses it over the link.
    verdict consider(const std::shared_ptr<net::link>& from, peer_number sender, const std::string& tag,
                     std::uint64_t bytes);
    /// In a round of several exchanges: their means are kept for `take_mean` from that one on; nothing: none is.
    void want_means(std::optional<std::uint32_t> from);
    /// The mean of that exchange by the open attempt, once; null: it is not complete. After it those before are not
    /// kept any more.
    std::shared_ptr<const core::flat_buffer> take_mean(std::uint32_t step);
    bool has_mean(std::uint32_t step) const;
    /// The aggregate of the open attempt, or of the round before, when it is complete; null otherwise.
    shared_aggregate result(std::uint64_t generation, std::uint64_t round, std::uint32_t attempt) const;
    /// Something of that round is still on its way here: worth a moment before it is fetched elsewhere.
    bool arriving(std::uint64_t generation, std::uint64_t round) const;
    /// Of the open round: authors whose payloads are here as far as they are to be here, sorted.
    std::vector<peer_number> authors() const;
    /// In a round of several exchanges: contributors of whose exchanges fewer are here than of another's, sorted.
    std::vector<peer_number> behind() const;
    /// Bytes of the open round that have arrived.
    std::uint64_t arrived_bytes() const { return arrived_bytes_; }
    /// When somebody last confirmed a stream of this node's payload.
    core::time_point delivered_at() const { return delivered_at_; }
    /// How fast this node's line carried the open round so far, each way.
    rate_of_exchange sent() const;
    rate_of_exchange received() const;
    /// Bytes of memory that streams take now.
    std::uint64_t held_bytes() const;
    /// Something of the open round goes out from here, to members.
    bool uploading() const;
    /// Streams are arriving.
    bool receiving() const { return receiving_ > 0; }

    /// Of a committed round; the newest are kept.
    void retain(shared_aggregate a);
    shared_aggregate find_aggregate(std::uint64_t generation, std::uint64_t round) const;

private:
    struct stream;
    struct attempt_state;
    using shared_stream = std::shared_ptr<stream>;
    using shared_attempt = std::shared_ptr<attempt_state>;

    // exchange.cpp
    /// Who is to hold a stream of these terms, borrowed from them; empty for any other.
    std::span<const peer_number> receivers_of(const exchange_terms& t, const stream_name& name) const;
    /// From whom this node is to get it, if it is.
    std::optional<peer_number> sender_of(const exchange_terms& t, const stream_name& name) const;
    /// To whom this node is to give it, under the open terms.
    std::vector<peer_number> takers_of(const stream_name& name) const;
    bool needed(const stream& s) const;
    /// Chunks of that stream that this node holds at a time; 0: all.
    std::uint32_t window_of(const exchange_terms& t, const stream_name& name) const;
    shared_stream make_stream(const exchange_terms& t, const stream_name& name);
    shared_stream find(const stream_name& name) const;
    /// What is left of a stream whose link broke, if it fits.
    shared_stream take_broken(const stream& s);
    void forget(const shared_stream& s);
    /// This node's contribution to the open round: to one of its exchanges, or to all.
    std::vector<shared_stream> own_streams(std::optional<std::uint32_t> step = std::nullopt) const;
    bool is_here(peer_number author, std::uint32_t step) const;
    /// Exchanges of that author, from the first on, whose streams are here as far as they are to be here.
    std::uint32_t exchanges_of(peer_number author) const;
    // exchange_moving.cpp
    void push_all();
    void push_to_takers(const shared_stream& s);
    core::task<core::result<void>> push(shared_stream s, peer_number to, std::uint32_t attempt);
    void watch();
    core::task<core::result<void>> watch_line();
    bool queue_stands() const;
    /// Members who share this node's line.
    std::set<peer_number> neighbours() const;
    /// Bytes that have arrived at the other members, over the links of now.
    std::uint64_t delivered_bytes() const;
    core::task<core::result<void>> receive(shared_stream s, shared_stream before, std::shared_ptr<net::link> from,
                                           std::string tag, peer_number sender);
    bool take_over(stream& s, const stream& before, std::uint64_t offset, std::uint64_t bytes);
    core::task<core::result<void>> check(shared_stream s, net::peer_key from, peer_number sender);
    void arrived(stream& s, std::uint64_t offset, std::uint64_t bytes, bool from_afar);
    void use_up(stream& s, std::uint32_t frames);
    void make_room(stream& s);
    bool root_fits(const stream& s) const;
    bool belongs(const stream& s, std::uint32_t frame, const chunk_header& h) const;
    core::result<void> admit(stream& s, std::uint32_t frame, const chunk_header& h);
    void verified(stream& s, std::uint32_t first, std::uint32_t count);
    // exchange_sums.cpp
    void start_attempt();
    void run_isolated(core::task<core::result<void>> part);
    core::task<core::result<void>> run_attempt(shared_attempt a);
    core::task<core::result<void>> reduce(shared_attempt a, std::uint32_t shard);
    core::task<core::result<void>> reduce_in_turn(shared_attempt a);
    core::task<core::result<void>> sum_exchange(shared_attempt a, std::uint32_t step,
                                                std::shared_ptr<core::flat_buffer> mean);
    core::task<core::result<void>> collect(shared_attempt a, std::uint32_t shard);
    std::vector<shared_stream> inputs_of(const attempt_state& a, std::uint32_t shard, std::uint32_t step) const;
    void shard_done(attempt_state& a);

    exchange_host& host_;
    exchange_terms terms_;
    std::optional<exchange_terms> before_;
    std::map<stream_name, shared_stream> streams_;  ///< of the open round and the one before
    shared_attempt current_, previous_;
    std::set<stream_name> refused_;  ///< of the open round: signed twice, or not what they should be
    /// Streams whose link broke, as far as they came: they go on from there over the next one.
    std::map<stream_name, shared_stream> broken_;
    /// Verified chunks of streams that broke off: whoever sends other ones the next time has signed both.
    std::map<stream_name, std::vector<core::digest>> former_;
    mutable std::map<peer_number, std::uint32_t> here_;  ///< of the open round: `exchanges_of`, as far as it was looked
    std::optional<std::uint32_t> means_from_;            ///< who trains wants the means of these exchanges
    std::map<std::uint32_t, std::shared_ptr<const core::flat_buffer>> means_;
    std::deque<shared_aggregate> aggregates_;
    core::wakeup moved_;  ///< chunks arrived, were made or dropped
    std::uint64_t arrived_bytes_ = 0;
    core::time_point last_arrival_{}, delivered_at_{};
    rate_of_exchange up_, down_;
    bool watching_ = false;             ///< `watch_line` runs
    std::set<peer_number> neighbours_;  ///< members who share this node's line: what they give each other is not on it
    std::uint64_t arrived_from_afar_ = 0;
    std::size_t receiving_ = 0;
};

}  // namespace longhaul::peers
