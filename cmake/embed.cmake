# wrenn_embed(target output.cc namespace function FILES ...): compiles files into `target` as
# `std::vector<EmbeddedFile> function()` (see base/embedded.h) in wrenn::<namespace>, in the order of their names.
function(wrenn_embed target output namespace function)
  cmake_parse_arguments(ARG "" "" "FILES" ${ARGN})
  set(body "")
  foreach(file ${ARG_FILES})
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${file})
    get_filename_component(name ${file} NAME)
    file(READ ${file} content)
    string(APPEND body "      {\"${name}\", R\"embed~(${content})embed~\"},\n")
  endforeach()
  file(CONFIGURE OUTPUT ${output} CONTENT [[
#include "base/embedded.h"

#pragma clang diagnostic ignored "-Woverlength-strings"

namespace wrenn::@namespace@ {
std::vector<EmbeddedFile> @function@();
std::vector<EmbeddedFile> @function@() {
  return {
@body@  };
}
}  // namespace wrenn::@namespace@
]] @ONLY)
  target_sources(${target} PRIVATE ${output})
endfunction()
