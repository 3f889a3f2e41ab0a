#pragma once
/// Errors are values: every fallible function returns `result<T>`, and an error carries a code that
/// some caller may branch on and one sentence for a person.

#include <fmt/format.h>

#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <utility>

namespace longhaul::core {

/// What went wrong, as far as any caller reacts to it. Add a code only when some caller branches on it.
enum class errc {
    cancelled,         ///< the operation was abandoned by its own side
    timeout,           ///< a deadline on the injected clock passed
    closed,            ///< the other end closed or reset the stream
    unreachable,       ///< nobody answers at that address
    address_in_use,    ///< the port to listen on is taken
    protocol,          ///< a peer broke the protocol: illegal, not merely unlucky
    version_mismatch,  ///< the peer speaks another wire version
    run_mismatch,      ///< the peer belongs to another run, or has another model
    not_admitted,      ///< wrong key or token, or revoked
    malformed,         ///< bytes that do not parse
    limit,             ///< a declared limit would be exceeded
    not_found,         ///< a file, key or name does not exist
    io,                ///< the disk or the operating system refused
    no_space,          ///< the disk is full
    config,            ///< the configuration is wrong
    usage,             ///< the command line is wrong
    forgotten,         ///< a voter's disk has lost what it agreed to
    quorum_lost,       ///< the run cannot commit: too few voters are reachable
    unsupported,       ///< not available in this build or on this machine
    internal,          ///< a bug: please report it
};

/// The name of a code as it appears in logs and events, for example "not_admitted".
std::string_view name_of(errc code);

/// The documented exit code of a process that ends with this error (README, "Exit codes").
int exit_code_of(errc code);

/// One error: a code and a sentence. `within` prepends what was being done, outermost first.
struct error {
    errc code = errc::internal;
    std::string message;

    error() = default;
    error(errc c, std::string m) : code(c), message(std::move(m)) {}
    error within(std::string_view doing) const& { return {code, fmt::format("{}: {}", doing, message)}; }
};

/// Either a value or an error.
template <typename T>
using result = tl::expected<T, error>;

/// Builds the error side of a result: `return fail(errc::limit, "chunk of {} bytes exceeds {}", n, max);`
template <typename... Args>
[[nodiscard]] tl::unexpected<error> fail(errc code, fmt::format_string<Args...> format, Args&&... args) {
    return tl::unexpected<error>(error(code, fmt::format(format, std::forward<Args>(args)...)));
}

/// Passes an existing error on, as the error side of another result.
[[nodiscard]] inline tl::unexpected<error> fail(error e) { return tl::unexpected<error>(std::move(e)); }

/// The success value of a `result<void>`.
inline result<void> ok() { return {}; }

/// Stops the process with a message when an internal invariant is broken. Stays on in release; never used on input.
[[noreturn]] void invariant_failed(const char* expression, const char* file, int line, std::string_view why);

}  // namespace longhaul::core

/// Asserts an internal invariant, in every build. Not for input from a peer, a file or a user.
#define LONGHAUL_ENSURE(condition, why)                                                            \
    do {                                                                                           \
        if (!(condition)) ::longhaul::core::invariant_failed(#condition, __FILE__, __LINE__, why); \
    } while (false)

#define LONGHAUL_CONCAT_(a, b) a##b
#define LONGHAUL_CONCAT(a, b) LONGHAUL_CONCAT_(a, b)

/// `LONGHAUL_TRY(expr)`: returns the error of `expr` from the enclosing function, if there is one.
#define LONGHAUL_TRY(...)                                                                      \
    do {                                                                                       \
        auto&& longhaul_tried = (__VA_ARGS__);                                                 \
        if (!longhaul_tried) return ::longhaul::core::fail(std::move(longhaul_tried).error()); \
    } while (false)

/// `LONGHAUL_TRY_ASSIGN(auto x, expr)`: binds the value of `expr`, or returns its error.
#define LONGHAUL_TRY_ASSIGN(target, ...) \
    LONGHAUL_TRY_ASSIGN_(LONGHAUL_CONCAT(longhaul_tried_, __LINE__), target, __VA_ARGS__)
#define LONGHAUL_TRY_ASSIGN_(name, target, ...)                        \
    auto name = (__VA_ARGS__);                                         \
    if (!name) return ::longhaul::core::fail(std::move(name).error()); \
    target = std::move(*name)

/// The same two inside a coroutine. Await first, into a named variable: `auto r = co_await f(); LONGHAUL_CO_TRY(r);`
/// (g++ 12.2 destroys some temporaries of a `co_await` expression twice).
#define LONGHAUL_CO_TRY(...)                                                                      \
    do {                                                                                          \
        auto&& longhaul_tried = (__VA_ARGS__);                                                    \
        if (!longhaul_tried) co_return ::longhaul::core::fail(std::move(longhaul_tried).error()); \
    } while (false)
#define LONGHAUL_CO_TRY_ASSIGN(target, ...) \
    LONGHAUL_CO_TRY_ASSIGN_(LONGHAUL_CONCAT(longhaul_tried_, __LINE__), target, __VA_ARGS__)
#define LONGHAUL_CO_TRY_ASSIGN_(name, target, ...)                        \
    auto name = (__VA_ARGS__);                                            \
    if (!name) co_return ::longhaul::core::fail(std::move(name).error()); \
    target = std::move(*name)
