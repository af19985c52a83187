#pragma once

#include <boost/json/object.hpp>
#include <optional>
#include <string>

#include "net/http.h"
#include "sys/file.h"

// Firecracker's control interface: small JSON requests over a unix socket.
namespace wrenn::vmm::firecracker {

// Why Firecracker did not do `request`, in its own words: kInternal, or kResourceExhausted reason
// "disk_full".
Error refusal(const std::string& request, int status, const std::string& body);

class ApiClient {
 public:
  ApiClient(asio::any_io_executor executor, std::string socket_path)
      : http_(std::move(executor)), socket_path_(std::move(socket_path)) {}

  // As refusal() says when it refuses; kUnavailable when it cannot be reached.
  Task<> request(std::string method, std::string target, boost::json::object body, Milliseconds limit);
  // The object that GET of `target` answers.
  Task<boost::json::object> get(std::string target, Milliseconds limit);
  // Waits until it answers.
  Task<> wait_ready(Milliseconds limit);

 private:
  Task<std::string> exchange(std::string method, std::string target, std::string body);

  net::HttpClient http_;
  std::string socket_path_;
  std::optional<sys::ShortPath> place_;
};

}  // namespace wrenn::vmm::firecracker
