#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <string_view>

/// Text that may hold any bytes, as paths do, as a str: what is not UTF-8 becomes escapes.
pybind11::object text_object(std::string_view text);

/// Lets Ctrl-C (and other signals) through while C++ works with the GIL released; throws what Python raises.
void check_signals();

/// Hands a warning to the logger "btnet_ext". Neither does anything once the interpreter is about to end: whoever takes
/// the GIL then has its thread ended, in the midst of what it does.
void warn(const std::string& message);
