# BLAKE3's official C library: the installed one where the system has it (Debian 13's libblake3-dev), else built from its
# sources, which Debian 12 and Ubuntu 24.04 carry inside librust-blake3-dev. Defines BLAKE3::blake3.

find_package(BLAKE3 CONFIG QUIET)
if(NOT TARGET BLAKE3::blake3)
    file(GLOB _blake3_candidates /usr/share/cargo/registry/blake3-1.*/c)
    find_path(BLAKE3_SOURCE_DIR blake3_dispatch.c PATHS ${_blake3_candidates} NO_DEFAULT_PATH
        DOC "The folder c/ of BLAKE3's sources")
    if(BLAKE3_SOURCE_DIR)
        set(_blake3_sources blake3.c blake3_dispatch.c blake3_portable.c)
        if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
            foreach(_set sse2 sse41 avx2 avx512)
                list(APPEND _blake3_sources blake3_${_set}_x86-64_unix.S)
            endforeach()
        elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
            list(APPEND _blake3_sources blake3_neon.c)
        endif()
        list(TRANSFORM _blake3_sources PREPEND ${BLAKE3_SOURCE_DIR}/)
        add_library(blake3 STATIC ${_blake3_sources})
        set_target_properties(blake3 PROPERTIES UNITY_BUILD OFF)
        target_include_directories(blake3 SYSTEM PUBLIC ${BLAKE3_SOURCE_DIR})
        # A library's speed and code are its own: the same in every build, sanitizers or not.
        target_compile_options(blake3 PRIVATE -O3)
        add_library(BLAKE3::blake3 ALIAS blake3)
    endif()
endif()

if(TARGET BLAKE3::blake3)
    set(Blake3_TARGET BLAKE3::blake3)
endif()
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(Blake3 REQUIRED_VARS Blake3_TARGET
    REASON_FAILURE_MESSAGE "Run scripts/setup, or name the folder c/ of BLAKE3's sources with -DBLAKE3_SOURCE_DIR=…")
