# Sets VARIABLE to FOLDER inside an installed Python package, unless it is set already: OpenVINO and nlohmann-json come
# as wheels, and pip's build isolation has them where only its own interpreter looks.
function(btnet_use_python_package package folder variable)
  if(${variable})
    return()
  endif()
  find_package(Python REQUIRED COMPONENTS Interpreter)
  execute_process(
    COMMAND ${Python_EXECUTABLE} -c
      "import importlib.util as u; print(u.find_spec('${package}').submodule_search_locations[0])"
    OUTPUT_VARIABLE location OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
  if(failed)
    message(FATAL_ERROR "${Python_EXECUTABLE} has no package ${package}: install it with pip, or set ${variable}")
  endif()
  set(${variable} "${location}/${folder}" CACHE PATH "From the Python package ${package}")
endfunction()
