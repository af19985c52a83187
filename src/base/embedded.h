#pragma once

#include <string_view>
#include <vector>

namespace wrenn {

// A file that the build compiled into the program (cmake/embed.cmake).
struct EmbeddedFile {
  std::string_view name;
  std::string_view content;
};

}  // namespace wrenn
