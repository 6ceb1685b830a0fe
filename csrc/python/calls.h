#pragma once

#include <string>

/// Lets Ctrl-C (and other signals) through while C++ works with the GIL released; throws what Python raises.
void check_signals();

/// Hands a warning to the logger "btnet_ext".
void warn(const std::string& message);
