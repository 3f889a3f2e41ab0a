# The LibTorch of the PyPI wheel, for the loadable trainer module. torch's own CMake files are not used: they want a CUDA
# toolkit and may declare a dummy protobuf. Asks LONGHAUL_PYTHON, then .venv/bin/python, then python3.
#
# Defines TorchWheel::torch_cpu and TorchWheel::c10 (imported; the CPU half, which needs nothing else of the wheel to be
# linked: the module loads libtorch_cuda.so by name when a CUDA device is asked for) and TorchWheel_VERSION, TorchWheel_LIBRARY_DIR.
# The wheel's libraries find their nvidia-* neighbours by their own rpath.

if(LONGHAUL_PYTHON)
    set(_torch_pythons ${LONGHAUL_PYTHON})
else()
    set(_torch_pythons ${PROJECT_SOURCE_DIR}/.venv/bin/python python3)
endif()

set(_torch_answer "")
set(_torch_tried "")
foreach(_python IN LISTS _torch_pythons)
    execute_process(
        COMMAND ${_python} -c "import torch; print(torch.__version__.split('+')[0], int(torch.compiled_with_cxx11_abi()), torch.__path__[0], sep=';')"
        OUTPUT_VARIABLE _torch_answer ERROR_VARIABLE _torch_error RESULT_VARIABLE _torch_result
        OUTPUT_STRIP_TRAILING_WHITESPACE)
    if(_torch_result EQUAL 0)
        break()
    endif()
    set(_torch_answer "")
    string(REGEX REPLACE ".*\n([^\n]+)\n?$" "\\1" _torch_error "${_torch_error}")
    string(APPEND _torch_tried "\n  ${_python}: ${_torch_result} ${_torch_error}")
endforeach()

if(NOT _torch_answer)
    set(TorchWheel_FOUND FALSE)
    set(TorchWheel_REASON "no Python with torch was found:${_torch_tried}\nRun scripts/setup, or name one with -DLONGHAUL_PYTHON=…, or build without trainers with -DLONGHAUL_TORCH=OFF.")
else()
    list(GET _torch_answer 0 TorchWheel_VERSION)
    list(GET _torch_answer 1 _torch_abi)
    list(GET _torch_answer 2 _torch_path)
    set(TorchWheel_LIBRARY_DIR ${_torch_path}/lib)
    if(TorchWheel_VERSION VERSION_LESS 2.11)
        set(TorchWheel_FOUND FALSE)
        set(TorchWheel_REASON "torch ${TorchWheel_VERSION} in ${_torch_path} is too old: longhaul needs 2.11 or later.")
    elseif(NOT _torch_abi)
        set(TorchWheel_FOUND FALSE)
        set(TorchWheel_REASON "torch in ${_torch_path} was built with the old C++ ABI and cannot be linked with this compiler's.")
    else()
        set(TorchWheel_FOUND TRUE)
        foreach(_lib c10 torch_cpu)
            if(NOT TARGET TorchWheel::${_lib})
                add_library(TorchWheel::${_lib} SHARED IMPORTED)
                set_target_properties(TorchWheel::${_lib} PROPERTIES IMPORTED_LOCATION ${TorchWheel_LIBRARY_DIR}/lib${_lib}.so)
            endif()
        endforeach()
        # After all others (-idirafter): the wheel carries its own fmt and protobuf headers, and the system's must win.
        target_compile_options(TorchWheel::torch_cpu INTERFACE
            "SHELL:-idirafter ${_torch_path}/include" "SHELL:-idirafter ${_torch_path}/include/torch/csrc/api/include")
        target_link_libraries(TorchWheel::torch_cpu INTERFACE TorchWheel::c10)
    endif()
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(TorchWheel
    REQUIRED_VARS TorchWheel_LIBRARY_DIR TorchWheel_FOUND VERSION_VAR TorchWheel_VERSION
    REASON_FAILURE_MESSAGE "${TorchWheel_REASON}")
