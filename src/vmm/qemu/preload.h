#pragma once

#include <string_view>

namespace wrenn::vmm::qemu {

// The shared library of preload/, as bytes.
std::string_view preload_library();

}  // namespace wrenn::vmm::qemu
