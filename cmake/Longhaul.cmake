# Flags and the one way to declare a folder of longhaul.

add_library(longhaul_options INTERFACE)
target_compile_features(longhaul_options INTERFACE cxx_std_20)
target_include_directories(longhaul_options INTERFACE ${PROJECT_SOURCE_DIR})
# Replicas must get the same bits from the same bytes: no contraction, no fast-math, anywhere.
target_compile_options(longhaul_options INTERFACE -ffp-contract=off -fno-fast-math)
# Asio finds this out from what was included before it: files would disagree on who frees a coroutine's frame.
target_compile_definitions(longhaul_options INTERFACE ASIO_HAS_STD_ALIGNED_ALLOC)
target_compile_definitions(longhaul_options INTERFACE
    ASIO_STANDALONE ASIO_NO_DEPRECATED SPDLOG_FMT_EXTERNAL _GLIBCXX_ASSERTIONS)
target_link_libraries(longhaul_options INTERFACE Threads::Threads fmt::fmt)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

add_library(longhaul_warnings INTERFACE)
target_compile_options(longhaul_warnings INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wnon-virtual-dtor
    -Wold-style-cast -Woverloaded-virtual -Wno-sign-conversion -Wno-missing-field-initializers)
if(LONGHAUL_WERROR)
    target_compile_options(longhaul_warnings INTERFACE -Werror)
endif()
if(LONGHAUL_UNITY)
    # A name of one file may shadow one of the file before it, which says nothing about either. g++ takes the files for
    # headers, whose coroutines should not hold what only one file knows.
    target_compile_options(longhaul_warnings INTERFACE -Wno-shadow
        $<$<CXX_COMPILER_ID:GNU>:-Wno-subobject-linkage>)
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # g++ 12 reports these inside libstdc++ and Asio when it inlines under sanitizers.
    target_compile_options(longhaul_warnings INTERFACE -Wno-maybe-uninitialized -Wno-array-bounds
        -Wno-stringop-overflow -Wno-stringop-overread -Wno-restrict -Wno-dangling-pointer -Wno-free-nonheap-object
        -Wno-mismatched-new-delete)
    if(LONGHAUL_SANITIZE MATCHES "thread")
        # Asio has fences, which the thread sanitizer does not see.
        target_compile_options(longhaul_warnings INTERFACE -Wno-tsan)
    endif()
endif()
if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    # clang's feature test does not recognise coroutines of libstdc++ 12 (Asio 1.22.1).
    target_compile_definitions(longhaul_options INTERFACE ASIO_HAS_CO_AWAIT ASIO_HAS_STD_COROUTINE)
    # libstdc++ 12's stable algorithms call a function that it declares deprecated.
    target_compile_options(longhaul_warnings INTERFACE -Wno-deprecated-declarations)
endif()

if(LONGHAUL_SANITIZE)
    target_compile_options(longhaul_options INTERFACE -fsanitize=${LONGHAUL_SANITIZE} -fno-omit-frame-pointer
        -fno-sanitize-recover=all)
    target_link_options(longhaul_options INTERFACE -fsanitize=${LONGHAUL_SANITIZE})
    if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
        # Coroutine frames have no function type record.
        target_compile_options(longhaul_options INTERFACE -fno-sanitize=function)
    endif()
endif()

if(LONGHAUL_FUZZ)
    target_compile_options(longhaul_options INTERFACE -fsanitize=fuzzer-no-link)
endif()

find_program(LONGHAUL_CCACHE ccache)
if(LONGHAUL_CCACHE)
    # Paths below the checkout are hashed as relative ones: what one checkout compiled, another one finds.
    set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_BASEDIR=${PROJECT_SOURCE_DIR} CCACHE_NOHASHDIR=1
        ${LONGHAUL_CCACHE})
    set(CMAKE_C_COMPILER_LAUNCHER ${CMAKE_CXX_COMPILER_LAUNCHER})
    set(CMAKE_CUDA_COMPILER_LAUNCHER ${CMAKE_CXX_COMPILER_LAUNCHER})
endif()

# longhaul_library(<name> SOURCES … HEADERS … [LINK …] [PRIVATE_LINK …]): folder = target = namespace. Each header is compiled alone by the
# target all_verify_interface_header_sets.
function(longhaul_library name)
    cmake_parse_arguments(arg "" "" "SOURCES;HEADERS;LINK;PRIVATE_LINK" ${ARGN})
    add_library(${name} STATIC ${arg_SOURCES})
    target_sources(${name} PUBLIC FILE_SET HEADERS BASE_DIRS ${PROJECT_SOURCE_DIR} FILES ${arg_HEADERS})
    target_link_libraries(${name} PUBLIC longhaul_options ${arg_LINK} PRIVATE longhaul_warnings ${arg_PRIVATE_LINK})
endfunction()
