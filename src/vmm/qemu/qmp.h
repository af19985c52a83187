#pragma once

#include <boost/asio/local/stream_protocol.hpp>
#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <string>

#include "async/async.h"

// The QEMU machine protocol: one JSON message a line over a unix socket.
namespace wrenn::vmm::qemu {

class QmpClient {
 public:
  explicit QmpClient(const asio::any_io_executor& executor) : socket_(executor) {}

  // Connects, reads the greeting and leaves negotiation mode. QEMU serves one client at a time: the greeting
  // comes once an earlier connection is closed. kUnavailable when QEMU ends meanwhile.
  Task<> connect(std::string path, Milliseconds limit);
  // Runs a command and answers its "return" value. An error of QEMU's is kInternal with its description;
  // kUnavailable when the connection is gone. One call at a time. After kDeadlineExceeded the connection
  // stays usable: the late answer is skipped.
  Task<boost::json::value> execute(std::string command, boost::json::object arguments, Milliseconds limit);
  bool connected() const { return socket_.is_open(); }
  // Whether QEMU may have said something that no command asked for, such as that the VM stopped, since
  // forget_news(). True after connect().
  bool has_news() const;
  void forget_news() { news_ = false; }
  void close();

 private:
  Task<> open_session(std::string path);
  Task<boost::json::value> exchange(std::string command, boost::json::object arguments);
  Task<boost::json::object> read_message();
  Task<> send(std::string line);

  asio::local::stream_protocol::socket socket_;
  std::string buffer_;
  std::uint64_t next_id_ = 1;
  bool news_ = false;
};

}  // namespace wrenn::vmm::qemu
