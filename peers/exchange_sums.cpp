/// Making payloads, summing them, and collecting what other owners summed.

#include <algorithm>
#include <bit>

#include "core/hash.hpp"
#include "optim/aggregate.hpp"
#include "peers/exchange_impl.hpp"

namespace longhaul::peers {

using core::errc;
using core::fail;
using namespace std::chrono_literals;

namespace {

/// The payload's name in COMMIT, from the roots of its shards.
core::digest payload_id(const std::vector<core::digest>& roots) {
    if (roots.size() == 1) return roots.front();
    core::byte_writer all;
    for (const auto& r : roots) all.raw(r.bytes);
    return core::hash(all.bytes());
}

core::byte_vector write_lines(const std::vector<peer_number>& contributors, const std::vector<shard_input>& inputs) {
    core::byte_writer out;
    for (std::size_t i = 0; i < inputs.size(); ++i) {
        const auto& w = inputs[i].work;
        out.u32(contributors[i]).u64(w.tokens).u32(w.steps).u64(std::bit_cast<std::uint64_t>(w.loss));
        out.raw(inputs[i].root.bytes);
    }
    return out.take();
}

/// An owner's table; its bytes are verified, its content is the owner's word.
core::result<std::vector<shard_input>> read_lines(const std::vector<peer_number>& contributors, core::const_bytes in) {
    core::byte_reader r(in);
    std::vector<shard_input> out;
    for (const auto c : contributors) {
        shard_input line;
        LONGHAUL_TRY_ASSIGN(const auto number, r.u32());
        LONGHAUL_TRY_ASSIGN(line.work.tokens, r.u64());
        LONGHAUL_TRY_ASSIGN(line.work.steps, r.u32());
        LONGHAUL_TRY_ASSIGN(const auto loss, r.u64());
        LONGHAUL_TRY(r.copy_to(line.root.bytes));
        line.work.loss = std::bit_cast<double>(loss);
        if (number != c) return fail(errc::protocol, "an owner summed peer {} in the place of {}", number, c);
        out.push_back(line);
    }
    LONGHAUL_TRY(r.end());
    return out;
}

std::vector<work_done> works_of(const auto& inputs) {
    std::vector<work_done> out;
    for (const auto& s : inputs) out.push_back(*s->work);
    return out;
}

std::vector<core::const_bytes> data_of(const auto& inputs, std::uint32_t chunk) {
    std::vector<core::const_bytes> out;
    for (const auto& s : inputs) out.push_back(s->data(chunk));
    return out;
}

/// A chunk's sum that a few contributors cannot move far. On an error `sum` is unchanged.
core::result<void> sum_robustly(const optim::robust_sum& robust, const compress::codec& codec, const compress::range& r,
                                const std::vector<core::const_bytes>& said, std::span<float> sum) {
    std::vector<core::flat_buffer> decoded(said.size(), core::flat_buffer(r.size()));
    for (std::size_t c = 0; c < said.size(); ++c) LONGHAUL_TRY(codec.decode(r, said[c], decoded[c]));
    for (const auto& p : r.pieces()) {
        std::vector<std::span<float>> parts;
        for (auto& all : decoded) parts.push_back(std::span(all).subspan(p.first, p.count));
        robust.combine(p, parts, sum.subspan(p.first, p.count));
    }
    return core::ok();
}

/// How a round's contributions to one sum become one: begun when all of them say what they stand for.
struct summation {
    optim::aggregator mean;
    std::optional<optim::robust_sum> robust;

    static core::result<summation> begin(const core::tensor_manifest& tensors, optim::aggregation how,
                                         const std::vector<work_done>& works) {
        std::vector<optim::contribution_weight> weights;
        std::vector<std::uint64_t> steps;
        for (const auto& w : works) {
            weights.push_back({w.tokens, w.steps});
            steps.push_back(w.steps);
        }
        LONGHAUL_TRY_ASSIGN(auto mean, optim::aggregator::begin(tensors, weights));
        summation s{std::move(mean), std::nullopt};
        if (how != optim::aggregation::mean) s.robust.emplace(how, steps);
        return s;
    }

    /// Adds a chunk of all contributions to `sum`, which is zero. On an error it may have some of them.
    core::result<void> add(const compress::codec& codec, const compress::range& r,
                           const std::vector<core::const_bytes>& said, std::span<float> sum) const {
        if (robust) return sum_robustly(*robust, codec, r, said, sum);
        for (std::size_t c = 0; c < said.size(); ++c) LONGHAUL_TRY(codec.add(r, said[c], mean.factors_of(c), sum));
        return core::ok();
    }
};

}  // namespace

void exchange::run_isolated(core::task<core::result<void>> part) {
    host_.tasks().spawn_isolated("exchange", std::move(part),
                                 [&host = host_](const core::error& e) { host.report(e, "exchanging"); });
}

// ---- the own payload

core::task<core::result<contribution>> exchange::contribute(std::span<const float> values, work_done work) {
    LONGHAUL_ENSURE(values.size() == host_.tensors(terms_.round).elements(), "a payload has the model's length");
    LONGHAUL_CO_TRY_ASSIGN(const auto codec, compress::find_codec(terms_.codec));
    range_encoder encode = [values, codec](const compress::range& r, core::mutable_bytes out) {
        return codec->encode(r, values.subspan(r.first(), r.size()), {}, out);
    };
    auto made = co_await contribute(std::move(encode), work);
    co_return made;
}

core::task<core::result<contribution>> exchange::contribute(range_encoder encode, work_done work, std::uint32_t step) {
    prepare(step);
    const auto mine = own_streams(step), of_round = own_streams();
    LONGHAUL_CO_TRY_ASSIGN(const auto codec, compress::find_codec(terms_.codec));
    LONGHAUL_ENSURE(!mine.empty(), "a contributor has a payload");
    std::uint32_t longest = 0;
    for (const auto& s : mine) {
        s->work = work;
        longest = std::max(longest, s->layout.count());
    }
    core::result<void> made = core::ok();
    // The first chunk goes out as soon as it can; later ones a few at a time, of all shards in turn.
    for (std::uint32_t i = 0, n = 1; i < longest; i += n, n = 4) {
        std::function<void()> job = [&] {
            for (const auto& s : mine) {
                chunk_header h;
                h.run = host_.run();
                h.stream = s->name;
                h.codec = s->codec;
                h.work = work;
                const auto& l = s->layout;
                for (auto f = i; f < std::min(i + n, l.count()) && made; ++f) {
                    h.index = l.first() + f;
                    made = encode(range_of_chunk(host_.tensors(s->name.round), *codec, h.index), s->data(f));
                    h.hash = s->hashes[f] = core::hash(s->data(f));
                    if (f + 1 == l.count()) h.root = s->root = root_of_stream(h, s->hashes);
                    seal_chunk(h, s->frame(f), host_.identity());
                }
            }
        };
        auto ran = co_await host_.env().workers.run(std::move(job), 0s);
        LONGHAUL_CO_TRY(ran);
        LONGHAUL_CO_TRY(made);
        for (const auto& s : mine) {
            if (i < s->layout.count()) verified(*s, i, std::min(n, s->layout.count() - i));
        }
    }
    contribution out;
    out.number = host_.self();
    out.tokens = work.tokens;
    out.steps = work.steps;
    out.loss = work.loss;
    std::vector<core::digest> roots;
    for (const auto& s : of_round) roots.push_back(s->root);
    out.payload = payload_id(roots);
    co_return out;
}

// ---- an attempt

void exchange::start_attempt() {
    current_.reset();
    if (!has(terms_.members, host_.self())) return;
    auto a = std::make_shared<attempt_state>();
    a->terms = terms_;
    const auto codec = compress::find_codec(terms_.codec);
    LONGHAUL_ENSURE(codec, "open has looked for it");
    a->codec = *codec;
    a->inputs.resize(std::size_t{shards_of(terms_.plan)} * terms_.exchanges);
    a->shards_left = shards_of(terms_.plan);
    a->out->generation = terms_.generation;
    a->out->round = terms_.round;
    current_ = a;
    run_isolated(run_attempt(std::move(a)));
}

core::task<core::result<void>> exchange::run_attempt(shared_attempt a) {
    const auto elements = host_.tensors(a->terms.round).elements();
    const auto chunks = chunks_of(a->terms, elements);
    const bool nobody = a->terms.contributors.empty();
    std::function<void()> job = [&] {
        a->out->values.assign(elements, 0.0F);
        a->out->leaves.resize(chunk_grid::of(elements).count());
        if (nobody) a->out->leaves = leaves_of(a->out->values);
    };
    auto ran = co_await host_.env().workers.run(std::move(job), 0s);
    LONGHAUL_CO_TRY(ran);
    if (a->over) co_return core::ok();
    if (nobody) {
        a->shards_left = 1;
        shard_done(*a);
        co_return core::ok();
    }
    const auto& plan = a->terms.plan;
    for (std::uint32_t shard = 0; shard < shards_of(plan); ++shard) {
        if (range_of(plan, shard, chunks).count == 0) {
            shard_done(*a);
        } else if (a->terms.exchanges > 1) {
            run_isolated(reduce_in_turn(a));
        } else if (plan.shards.empty() || plan.shards[shard].owner == host_.self()) {
            run_isolated(reduce(a, shard));
        } else {
            run_isolated(collect(a, shard));
        }
    }
    co_return core::ok();
}

/// The contributors' streams of a shard, or of one of several exchanges, in the order of summation; empty while one has
/// not begun.
std::vector<exchange::shared_stream> exchange::inputs_of(const attempt_state& a, std::uint32_t shard,
                                                         std::uint32_t step) const {
    std::vector<shared_stream> out;
    for (const auto c : a.terms.contributors) {
        stream_name name;
        name.generation = a.terms.generation;
        name.round = a.terms.round;
        name.step = step;
        name.shard = shard;
        name.author = c;
        auto s = find(name);
        if (!s || !s->work) return {};
        out.push_back(std::move(s));
    }
    return out;
}

/// Sums a shard chunk by chunk, in the order of the round. An owner signs and sends each chunk of the result, and takes
/// for itself what the others will decode.
core::task<core::result<void>> exchange::reduce(shared_attempt a, std::uint32_t shard) {
    const auto& terms = a->terms;
    const auto range = range_of(terms.plan, shard, chunks_of(terms, host_.tensors(terms.round).elements()));
    shared_stream out;
    if (!terms.plan.shards.empty()) {
        stream_name name;
        name.generation = terms.generation;
        name.round = terms.round;
        name.kind = stream_kind::reduced;
        name.attempt = terms.attempt;
        name.shard = shard;
        name.author = host_.self();
        out = make_stream(terms, name);
        out->own = true;
        push_all();
    }
    std::optional<summation> sum;
    core::result<void> summed = core::ok();
    for (std::uint32_t i = 0; i < range.count;) {
        if (a->over) co_return core::ok();
        const auto inputs = inputs_of(*a, shard, 0);
        for (const auto& s : inputs) use_up(*s, i);
        auto n = inputs.empty() ? 0 : std::min(batch, range.count - i);
        for (const auto& s : inputs) n = s->run_from(i, n);
        if (n == 0) {
            auto woken = co_await moved_.wait();
            LONGHAUL_CO_TRY(woken);
            continue;
        }
        if (!sum) {
            auto begun = summation::begin(host_.tensors(terms.round), host_.aggregation(), works_of(inputs));
            LONGHAUL_CO_TRY(begun);
            sum = std::move(*begun);
        }
        std::function<void()> job = [&] {
            for (auto f = i; f < i + n && summed; ++f) {
                const auto chunk = range.first + f;
                const auto elements = range_of_chunk(host_.tensors(terms.round), *a->codec, chunk);
                const auto part = std::span(a->out->values).subspan(elements.first(), elements.size());
                summed = sum->add(*a->codec, elements, data_of(inputs, f), part);
                if (!summed) return;
                if (out) {
                    summed = a->codec->encode(elements, part, {}, out->data(f));
                    if (summed) summed = a->codec->decode(elements, out->data(f), part);
                    if (!summed) return;
                    chunk_header h;
                    h.run = host_.run();
                    h.stream = out->name;
                    h.index = chunk;
                    h.codec = out->codec;
                    h.hash = out->hashes[f] = core::hash(out->data(f));
                    seal_chunk(h, out->frame(f), host_.identity());
                }
                if (out && a->codec->lossless()) {
                    a->out->leaves[chunk] = out->hashes[f];
                } else {
                    hash_leaves(a->out->values, elements.first(), elements.size(), a->out->leaves);
                }
            }
        };
        auto ran = co_await host_.env().workers.run(std::move(job), 0s);
        LONGHAUL_CO_TRY(ran);
        LONGHAUL_CO_TRY(summed);
        if (out) verified(*out, i, n);
        i += n;
    }
    // The last chunks may have come before the first ones of a stream were checked against its root.
    for (;;) {
        if (a->over) co_return core::ok();
        const auto inputs = inputs_of(*a, shard, 0);
        // The last frame brings the root: it comes again, if its link broke.
        for (const auto& s : inputs) use_up(*s, range.count - 1);
        if (!inputs.empty() && std::ranges::all_of(inputs, [](const auto& s) { return s->complete; })) {
            for (const auto& s : inputs) {
                a->inputs[shard].push_back({*s->work, s->root});
                use_up(*s, range.count);
            }
            break;
        }
        auto woken = co_await moved_.wait();
        LONGHAUL_CO_TRY(woken);
    }
    if (out) {
        const auto f = out->layout.count();
        const auto lines = write_lines(terms.contributors, a->inputs[shard]);
        std::ranges::copy(lines, out->data(f).begin());
        chunk_header h;
        h.run = host_.run();
        h.stream = out->name;
        h.index = out->layout.first() + f;
        h.codec = out->codec;
        h.hash = out->hashes[f] = core::hash(lines);
        h.root = out->root = root_of_stream(h, out->hashes);
        seal_chunk(h, out->frame(f), host_.identity());
        verified(*out, f, 1);
    }
    shard_done(*a);
    co_return core::ok();
}

/// Sums the exchanges of a round one after another: what they give is the sum of their means.
core::task<core::result<void>> exchange::reduce_in_turn(shared_attempt a) {
    const auto elements = host_.tensors(a->terms.round).elements();
    auto mean = std::make_shared<core::flat_buffer>();
    for (std::uint32_t step = 0; step < a->terms.exchanges && !a->over; ++step) {
        // Nobody wants the last one: its buffer is used again.
        if (mean.use_count() > 1) mean = std::make_shared<core::flat_buffer>();
        std::function<void()> clear = [&mean, elements] { mean->assign(elements, 0.0F); };
        auto cleared = co_await host_.env().workers.run(std::move(clear), 0s);
        LONGHAUL_CO_TRY(cleared);
        auto summed = co_await sum_exchange(a, step, mean);
        LONGHAUL_CO_TRY(summed);
        if (a->over || current_ != a || !means_from_ || step < *means_from_) continue;
        means_[step] = mean;
        host_.changed().notify();
    }
    if (!a->over) shard_done(*a);
    co_return core::ok();
}

/// Sums one of several exchanges into `mean`, which is zero, and adds that to the round's values. Returns early when
/// the attempt is over.
core::task<core::result<void>> exchange::sum_exchange(shared_attempt a, std::uint32_t step,
                                                      std::shared_ptr<core::flat_buffer> mean) {
    const auto& tensors = host_.tensors(a->terms.round);
    const auto chunks = chunks_of(a->terms, tensors.elements());
    const bool is_last = step + 1 == a->terms.exchanges;
    std::optional<summation> sum;
    core::result<void> summed = core::ok();
    for (std::uint32_t i = 0; !a->over;) {
        const auto inputs = inputs_of(*a, 0, step);
        auto n = inputs.empty() ? 0 : std::min(batch, chunks - i);
        for (const auto& s : inputs) n = s->run_from(i, n);
        const auto is_whole = [](const auto& s) { return s->complete; };
        if (!inputs.empty() && i == chunks && std::ranges::all_of(inputs, is_whole)) {
            for (const auto& s : inputs) a->inputs[step].push_back({*s->work, s->root});
            break;
        }
        if (n == 0) {
            auto woken = co_await moved_.wait();
            LONGHAUL_CO_TRY(woken);
            continue;
        }
        if (!sum) {
            auto begun = summation::begin(tensors, host_.aggregation(), works_of(inputs));
            LONGHAUL_CO_TRY(begun);
            sum = std::move(*begun);
        }
        std::function<void()> job = [&] {
            for (auto f = i; f < i + n && summed; ++f) {
                const auto elements = range_of_chunk(tensors, *a->codec, f);
                const auto here = std::span(*mean).subspan(elements.first(), elements.size());
                summed = sum->add(*a->codec, elements, data_of(inputs, f), here);
                const auto all = std::span(a->out->values).subspan(elements.first(), elements.size());
                if (!summed) return;
                for (std::size_t k = 0; k < all.size(); ++k) all[k] += here[k];
                if (is_last) hash_leaves(a->out->values, elements.first(), elements.size(), a->out->leaves);
            }
        };
        auto ran = co_await host_.env().workers.run(std::move(job), 0s);
        LONGHAUL_CO_TRY(ran);
        LONGHAUL_CO_TRY(summed);
        i += n;
    }
    co_return core::ok();
}

/// Takes a shard's result from its owner, chunk by chunk.
core::task<core::result<void>> exchange::collect(shared_attempt a, std::uint32_t shard) {
    const auto& terms = a->terms;
    const auto range = range_of(terms.plan, shard, chunks_of(terms, host_.tensors(terms.round).elements()));
    stream_name name;
    name.generation = terms.generation;
    name.round = terms.round;
    name.kind = stream_kind::reduced;
    name.attempt = terms.attempt;
    name.shard = shard;
    name.author = terms.plan.shards[shard].owner;
    core::result<void> decoded = core::ok();
    for (std::uint32_t i = 0; i < range.count;) {
        if (a->over) co_return core::ok();
        const auto s = find(name);
        const auto n = s ? s->run_from(i, std::min(batch, range.count - i)) : 0;
        if (n == 0) {
            auto woken = co_await moved_.wait();
            LONGHAUL_CO_TRY(woken);
            continue;
        }
        std::function<void()> job = [&] {
            for (auto f = i; f < i + n && decoded; ++f) {
                const auto chunk = range.first + f;
                const auto elements = range_of_chunk(host_.tensors(terms.round), *a->codec, chunk);
                const auto part = std::span(a->out->values).subspan(elements.first(), elements.size());
                decoded = a->codec->decode(elements, s->data(f), part);
                if (a->codec->lossless()) {
                    a->out->leaves[chunk] = s->hashes[f];
                } else {
                    hash_leaves(a->out->values, elements.first(), elements.size(), a->out->leaves);
                }
            }
        };
        auto ran = co_await host_.env().workers.run(std::move(job), 0s);
        LONGHAUL_CO_TRY(ran);
        LONGHAUL_CO_TRY(decoded);
        i += n;
    }
    for (;;) {
        if (a->over) co_return core::ok();
        if (const auto s = find(name); s && s->complete) {
            auto lines = read_lines(terms.contributors, s->data(s->layout.count()));
            if (!lines) {
                // It was signed, and nobody but its author can have written it.
                const auto author = s->author;
                const auto what = fmt::format("the sum of shard {} in round {}", shard, terms.round);
                refused_.insert(name);
                forget(s);
                host_.caught(author, lines.error(), what);
                co_return core::ok();
            }
            a->inputs[shard] = std::move(*lines);
            break;
        }
        auto woken = co_await moved_.wait();
        LONGHAUL_CO_TRY(woken);
    }
    shard_done(*a);
    co_return core::ok();
}

/// One shard less to wait for; after the last one there is an aggregate.
void exchange::shard_done(attempt_state& a) {
    if (--a.shards_left > 0 || a.over) return;
    for (std::size_t i = 0; i < a.terms.contributors.size(); ++i) {
        contribution c;
        c.number = a.terms.contributors[i];
        std::vector<core::digest> roots;
        double loss_sum = 0;
        for (const auto& part : a.inputs) {
            if (part.empty()) continue;  // a shard without chunks
            const auto& w = part[i].work;
            roots.push_back(part[i].root);
            if (a.terms.exchanges > 1) {
                c.tokens += w.tokens;
                c.steps += w.steps;
                loss_sum += w.loss * static_cast<double>(w.tokens);
                c.loss = loss_sum / static_cast<double>(c.tokens);
                continue;
            }
            if (roots.size() > 1 && work_done{c.tokens, c.steps, c.loss} != w) {
                host_.report(core::error(errc::protocol, fmt::format("peer {} signed two versions", c.number)),
                             fmt::format("summing round {}", a.terms.round));
                return;
            }
            c.tokens = w.tokens;
            c.steps = w.steps;
            c.loss = w.loss;
        }
        c.payload = payload_id(roots);
        a.out->contributions.push_back(c);
    }
    a.out->root = root_of(a.out->contributions, a.out->leaves);
    a.result = a.out;
    host_.changed().notify();
}

}  // namespace longhaul::peers
