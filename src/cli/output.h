#pragma once

#include <boost/json/value.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "async/async.h"

// What the command line prints. Results go to standard output; progress and errors to standard error.
namespace wrenn::cli {

namespace json = boost::json;

// Exit codes. exec and shell pass the command's own code on.
inline constexpr int kExitOk = 0;
inline constexpr int kExitFailure = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitService = 3;  // the API could not be reached or refused the key
inline constexpr int kExitTimeout = 124;
inline constexpr int kExitInterrupted = 130;
int exit_code_for(const Error& error);

using Row = std::vector<std::string>;
// Columns padded to their widest cell, two spaces between.
std::string render_table(const Row& heading, const std::vector<Row>& rows);
// One line a row, cells separated by tabs, no heading: for pipes.
std::string render_tsv(const std::vector<Row>& rows);

// "3 s ago", "5 min ago", "2 h ago", "4 d ago" for an RFC 3339 time; the text itself if it is none.
std::string age_of(std::string_view rfc3339, std::int64_t now_unix);
// "never" for 0, else "90 s".
std::string timeout_text(std::int64_t seconds);
// "1.5 MiB".
std::string size_text(std::uint64_t bytes);

bool is_terminal(int fd);
// Text as a terminal may get it: the service's words may be a guest's, so control characters other than line
// feeds and tabs become spaces. All that follows prints so; only a command's own output goes out as it is.
std::string printable(std::string_view text);
// To standard output; an error of the write (closed pipe) is returned.
Result<> print(std::string_view text);
Result<> print_line(std::string_view text);
// A line to standard error.
void note(std::string_view text);
// One JSON document on one line.
Result<> print_json(const json::value& value);

// Prints "wrenn: <message>" or, with json, {"error":{"code","message"}} on standard error.
void report_error(const Error& error, bool as_json);

// Tells on standard error what takes long: on a terminal one line that counts seconds, else a line every ten
// seconds. Silent when the work is quick. Lives while `run`'s task does.
class Progress {
 public:
  explicit Progress(bool silent) : silent_(silent) {}
  template <class T>
  Task<T> run(std::string what, Task<T> task) {
    async::Nursery nursery(co_await asio::this_coro::executor);
    if (!silent_) nursery.spawn("progress", tick(std::move(what)));
    Result<T> result = co_await std::move(task);
    co_await nursery.cancel_and_join();
    clear();
    co_return result;
  }

 private:
  Task<> tick(std::string what);
  void clear();
  bool silent_;
  bool shown_ = false;
};

}  // namespace wrenn::cli
