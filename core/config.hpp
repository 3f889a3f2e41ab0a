#pragma once
/// Configuration: TOML text, environment and flags become one struct, each value with its origin.
/// Precedence: defaults < TOML < LONGHAUL_* < flags. An unknown key is an error that names the nearest known one.

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.hpp"
#include "core/units.hpp"

namespace longhaul::core {

/// Where a value came from, for `--print-config` and for errors: "default", "run.toml:12", "LONGHAUL_NODE_LISTEN",
/// "--listen".
struct config_origin {
    std::string text = "default";
};

/// A flat view of configuration: dotted keys ("inner.lr") to texts or lists, with their origins. Later layers replace
/// earlier ones.
class config_values {
public:
    struct value {
        std::string text;                ///< scalars as written; strings unquoted
        std::vector<std::string> items;  ///< for arrays
        bool is_list = false;
        config_origin origin;
    };
    /// Parses TOML; `file_name` appears in origins and errors ("run.toml:12: …"). Arrays of tables are errc::config
    /// here.
    static result<config_values> from_toml(std::string_view text, std::string file_name);
    /// Takes LONGHAUL_<SECTION>_<KEY> for each known dotted key, from `environment` ("NAME=value" strings).
    static config_values from_environment(const std::vector<std::string>& environment,
                                          const std::vector<std::string>& known_keys);
    /// errc::config when `environment` holds a LONGHAUL_* variable that belongs to no known key and is none of
    /// `other_names`; it names the nearest that exists.
    static result<void> check_environment(const std::vector<std::string>& environment,
                                          const std::vector<std::string>& known_keys,
                                          const std::vector<std::string>& other_names);
    /// One value from a flag; `flag` is its spelling, e.g. "--set inner.lr".
    void set(std::string key, std::string text, std::string origin);
    /// Takes over one value of another layer, under that key.
    void set(std::string key, value v) { values_.insert_or_assign(std::move(key), std::move(v)); }
    /// Lays `over` above this.
    void merge(const config_values& over);

    const std::map<std::string, value>& values() const { return values_; }
    const value* find(std::string_view key) const;

private:
    std::map<std::string, value> values_;
};

/// A file that also has arrays of tables ("[[peer]]"), which no flat key can name.
struct config_document {
    config_values values;
    std::map<std::string, std::vector<config_values>> tables;  ///< by name, each in the order of the file
    /// Parses TOML as config_values::from_toml does; arrays of tables stand at the top only, at most 10,000 in all.
    static result<config_document> from_toml(std::string_view text, std::string file_name);
};

/// Binds the fields of a struct to dotted keys; reads values into them, prints them with origins, and refuses unknown
/// keys.
class config_binder {
public:
    /// Fields must outlive the binder; a key is bound once. Ranges are inclusive.
    void bind(std::string key, std::string& field, std::string help);
    void bind(std::string key, bool& field, std::string help);
    void bind(std::string key, std::int64_t& field, std::string help, std::int64_t min, std::int64_t max);
    void bind(std::string key, double& field, std::string help, double min, double max);
    /// A number, or "auto" for none: others decide then.
    void bind(std::string key, std::optional<double>& field, std::string help, double min, double max);
    void bind(std::string key, duration& field, std::string help);
    void bind(std::string key, bit_rate& field, std::string help);
    /// Bytes ("64 MiB").
    void bind_bytes(std::string key, std::uint64_t& field, std::string help);
    /// A share: "0.5 %" or 0.005, from 0 to `max`.
    void bind_share(std::string key, double& field, std::string help, double max = 1);
    /// A TOML list, or a text with commas.
    void bind(std::string key, std::vector<std::string>& field, std::string help);
    /// A text out of a closed list; the error names the nearest.
    void bind_choice(std::string key, std::string& field, std::vector<std::string> choices, std::string help);

    std::vector<std::string> keys() const;
    /// Fills the bound fields, all or none. errc::config names key, value, origin, what is accepted; an unknown key
    /// names the nearest.
    result<void> apply(const config_values& values);
    /// The resolved configuration as TOML, each line with its origin as a comment.
    std::string print() const;
    /// As TOML without origins, in key order, every value exact: used where configuration is hashed. Reads back to the
    /// same fields.
    std::string canonical() const;

private:
    using commit = std::function<void()>;
    using parser = std::function<result<commit>(const config_values::value&)>;
    struct entry {
        std::string key, help, origin = "default";
        parser parse;
        std::function<std::string()> show;
    };
    void add(std::string key, std::string help, parser parse, std::function<std::string()> show);
    error unknown(const std::string& key, const config_values::value& v) const;

    std::vector<entry> entries_;
};

/// The known word nearest to `word` by edit distance, of the whole or of the parts after the last dot; empty if none is
/// near enough to suggest.
std::string nearest(std::string_view word, const std::vector<std::string>& known);

}  // namespace longhaul::core
