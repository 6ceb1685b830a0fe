#pragma once

/// The one place that holds btnet's version: CMake and pyproject.toml read it from here.
#define BTNET_VERSION "0.1.0"
