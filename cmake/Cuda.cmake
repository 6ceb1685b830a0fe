# The library btnet_cuda: kernels, for every architecture in one file, and the pipeline that uses them.
# There is none without nvcc (BTNET_CUDA=AUTO), and the end of the configuration says so.
#
# nvcc is called directly. CMake's own CUDA language would run its front end once for each architecture, and where its
# probe of a compiler fails, nothing else is configured either.
set(BTNET_CUDA AUTO CACHE STRING "Build the CUDA part: ON, OFF, or AUTO for where nvcc is found")
set_property(CACHE BTNET_CUDA PROPERTY STRINGS AUTO ON OFF)
set(BTNET_CUDA_ARCHITECTURES 75 80 86 89 90 100 120 CACHE STRING
  "Machine code for these, all from the PTX of the first one, which the driver compiles for any later architecture")
set(BTNET_CUDA_HOST_SOURCES)
foreach(name device lane pipeline request resize_plan)
  list(APPEND BTNET_CUDA_HOST_SOURCES "${CMAKE_CURRENT_SOURCE_DIR}/csrc/cuda/${name}.cc")
endforeach()

# Sets VARIABLE to the folder of the toolkit: where nvcc itself says, since what is on the PATH may be a script.
function(btnet_find_toolkit nvcc variable)
  execute_process(COMMAND ${nvcc} --dryrun -E -x cu /dev/null ERROR_VARIABLE steps OUTPUT_QUIET)
  if(NOT steps MATCHES "#\\$ TOP=([^\r\n]+)")
    message(FATAL_ERROR "${nvcc} does not say where its toolkit is: set BTNET_NVCC to an nvcc that works")
  endif()
  get_filename_component(toolkit "${CMAKE_MATCH_1}" REALPATH)
  set(${variable} "${toolkit}" PARENT_SCOPE)
endfunction()

# Sets VARIABLE to MAJOR.MINOR of a toolkit's runtime.
function(btnet_runtime_version toolkit variable)
  file(STRINGS "${toolkit}/include/cuda_runtime_api.h" line REGEX "define CUDART_VERSION +[0-9]+")
  string(REGEX MATCH "[0-9]+$" number "${line}")
  math(EXPR major "${number} / 1000")
  math(EXPR minor "${number} % 1000 / 10")
  set(${variable} "${major}.${minor}" PARENT_SCOPE)
endfunction()

function(btnet_add_cuda toolkit)
  list(GET BTNET_CUDA_ARCHITECTURES 0 oldest)
  list(TRANSFORM BTNET_CUDA_ARCHITECTURES PREPEND sm_ OUTPUT_VARIABLE codes)
  list(JOIN codes "," codes)
  # No contraction: the taps must have the bits that the CPU's have.
  set(flags -std=c++17 -O3 -fmad=false --threads 2 "-gencode=arch=compute_${oldest},code=[compute_${oldest},${codes}]"
    "-Xcompiler=-Wall,-Wextra,-fPIC,-fvisibility=hidden"
    "-I${PROJECT_SOURCE_DIR}/csrc" "-I${PROJECT_SOURCE_DIR}/csrc/include")
  if(BTNET_WERROR)
    list(APPEND flags -Werror all-warnings)
  endif()
  foreach(name resample dispatch)
    set(source "${PROJECT_SOURCE_DIR}/csrc/cuda/${name}.cu")
    set(object "${PROJECT_BINARY_DIR}/cuda_${name}.o")
    add_custom_command(OUTPUT "${object}" DEPENDS "${source}" DEPFILE "${object}.d" VERBATIM
      COMMENT "Compiling csrc/cuda/${name}.cu for all architectures"
      COMMAND "${BTNET_NVCC}" ${flags} -MD -MT "${object}" -MF "${object}.d" -c "${source}" -o "${object}")
    list(APPEND objects "${object}")
  endforeach()
  add_library(btnet_cuda STATIC ${BTNET_CUDA_HOST_SOURCES} ${objects})
  set_target_properties(btnet_cuda PROPERTIES EXPORT_NAME cuda)
  add_library(btnet::cuda ALIAS btnet_cuda)
  target_include_directories(btnet_cuda PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/csrc>)
  target_include_directories(btnet_cuda SYSTEM PUBLIC $<BUILD_INTERFACE:${toolkit}/include>)
  target_link_libraries(btnet_cuda PUBLIC btnet Threads::Threads ${CMAKE_DL_LIBS} rt
    $<BUILD_INTERFACE:${BTNET_CUDART}> $<INSTALL_INTERFACE:CUDA::cudart_static>)
endfunction()

# Says why there is no CUDA part: at the end of the configuration, or at once where BTNET_CUDA asks for it.
function(btnet_without_cuda reason)
  if(NOT BTNET_CUDA STREQUAL "AUTO")
    message(FATAL_ERROR "BTNET_CUDA is ${BTNET_CUDA}, and ${reason}")
  endif()
  # Evaluated now: a deferred call sees no variables of this function.
  set(message [[btnet is built without CUDA for device="cuda", since]])
  cmake_language(EVAL CODE "cmake_language(DEFER DIRECTORY [[${PROJECT_SOURCE_DIR}]] CALL message STATUS [[${message} ${reason}]])")
endfunction()

if(BTNET_CUDA)
  find_program(BTNET_NVCC nvcc HINTS ENV CUDA_HOME PATHS /usr/local/cuda PATH_SUFFIXES bin)
  if(BTNET_NVCC)
    btnet_find_toolkit("${BTNET_NVCC}" BTNET_CUDA_TOOLKIT)
    find_library(BTNET_CUDART cudart_static NO_DEFAULT_PATH
      PATHS "${BTNET_CUDA_TOOLKIT}" PATH_SUFFIXES lib64 lib targets/x86_64-linux/lib)
    if(EXISTS "${BTNET_CUDA_TOOLKIT}/include/cuda_runtime_api.h")
      btnet_runtime_version("${BTNET_CUDA_TOOLKIT}" BTNET_CUDA_VERSION)
    endif()
  endif()
  if(NOT BTNET_NVCC)
    btnet_without_cuda("there is no nvcc: install a toolkit or set BTNET_NVCC to its path")
  elseif(BTNET_CUDA_VERSION AND BTNET_CUDA_VERSION VERSION_LESS 12.8 AND 120 IN_LIST BTNET_CUDA_ARCHITECTURES)
    btnet_without_cuda("${BTNET_NVCC} is of CUDA ${BTNET_CUDA_VERSION}, which has no sm_120: install 12.8 or later")
  elseif(NOT BTNET_CUDART OR NOT BTNET_CUDA_VERSION)
    btnet_without_cuda("the toolkit in ${BTNET_CUDA_TOOLKIT} lacks cuda_runtime_api.h or cudart_static: install all of it")
  else()
    btnet_add_cuda("${BTNET_CUDA_TOOLKIT}")
  endif()
endif()
