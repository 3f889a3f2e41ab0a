#pragma once
/// The one way to include Catch2, whose header moved between version 2 (Debian) and 3.
#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
#else
#include <catch2/catch.hpp>
#endif
