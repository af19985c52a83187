#include "vmm/qemu/preload.h"

// WRENN_PRELOAD_LIBRARY names the built library (src/CMakeLists.txt).
asm(".section .rodata\n"
    "wrenn_preload_begin:\n"
    ".incbin \"" WRENN_PRELOAD_LIBRARY
    "\"\n"
    "wrenn_preload_end:\n"
    ".global wrenn_preload_begin, wrenn_preload_end\n"
    ".hidden wrenn_preload_begin, wrenn_preload_end\n"
    ".previous\n");

extern "C" const char wrenn_preload_begin[];
extern "C" const char wrenn_preload_end[];

namespace wrenn::vmm::qemu {

std::string_view preload_library() {
  return {wrenn_preload_begin, static_cast<std::size_t>(wrenn_preload_end - wrenn_preload_begin)};
}

}  // namespace wrenn::vmm::qemu
