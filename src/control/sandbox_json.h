#pragma once

#include <boost/json/object.hpp>

#include "store/store.h"

namespace wrenn::control {

// The Sandbox object of the API, without its token; what is empty is left out.
boost::json::object to_json(const store::Sandbox& sandbox);

}  // namespace wrenn::control
