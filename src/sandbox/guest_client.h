#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "connect/connect.h"
#include "connect/elements.h"
#include "filesystem/filesystem.pb.h"
#include "net/http.h"
#include "process/process.pb.h"

// The agent's end of envd, which answers at http://<slot address>:49983 inside the guest, or of whatever the
// guest's owner has put in its place: every answer is bounded before it is parsed.
namespace wrenn::sandbox {

struct ExecSpec {
  std::string cmd;
  std::vector<std::string> args;
  std::vector<std::pair<std::string, std::string>> envs;
  std::string cwd;                    // empty: the user's home
  std::string tag;                    // empty: none
  std::optional<Milliseconds> limit;  // the process is killed after it
};

// A terminal: `tag` names it in its sandbox.
struct PtySpec {
  std::string tag;
  std::string cmd;
  std::vector<std::string> args;
  std::vector<std::pair<std::string, std::string>> envs;
  std::string cwd;
  std::string user;  // empty: the guest's default
  std::uint32_t cols = 80;
  std::uint32_t rows = 24;
};

struct ExecOutput {
  std::string stdout_bytes;
  std::string stderr_bytes;
  int exit_code = 0;
};

class GuestClient;

// Each open stream of a guest holds a reference, so that they can be counted.
struct StreamShare {};

// A process started in the guest. Dropping it leaves the process running.
class GuestProcess {
 public:
  // Nullopt after the end event. An expired limit is kDeadlineExceeded.
  Task<std::optional<process::ProcessEvent>> next();
  // Ends it with all that it started; no answer from the guest within a short time is an error.
  Task<> kill();

 private:
  friend class GuestClient;
  Task<bool> receive_first(process::StartResponse* out);
  GuestProcess(GuestClient* guest, std::shared_ptr<const StreamShare> place,
               std::unique_ptr<connect::ClientCall> call)
      : guest_(guest), place_(std::move(place)), call_(std::move(call)) {}
  GuestClient* guest_;
  std::shared_ptr<const StreamShare> place_;
  std::unique_ptr<connect::ClientCall> call_;
  std::uint32_t pid_ = 0;
  bool ended_ = false;
};

// A file being written. Dropping it before finish() leaves a part of the file.
class GuestUpload {
 public:
  Task<> write(std::string bytes);
  Task<> finish();

 private:
  friend class GuestClient;
  explicit GuestUpload(std::unique_ptr<net::ClientRequest> request) : request_(std::move(request)) {}
  std::unique_ptr<net::ClientRequest> request_;
};

// A list of the guest, to be read entry by entry; `place` says that one more is being read.
struct GuestList {
  async::Semaphore::Guard place;
  connect::ElementReader entries;
};

class GuestClient {
 public:
  GuestClient(std::shared_ptr<net::HttpClient> http, std::string host_ip, std::string token);

  // Polls /health until the guest answers; kDeadlineExceeded after `limit`.
  Task<> wait_healthy(Milliseconds limit);
  // Sets clock, token, machine id and environment, and gives fresh entropy; retried until `limit`, or until
  // the VM is no more `alive`, and repeated while the clock may be off because the guest was slow to answer.
  // A guest must not serve before it succeeded.
  Task<> init(std::vector<std::pair<std::string, std::string>> envs, std::string machine_id,
              std::function<bool()> alive, Milliseconds limit);
  // Before a pause: stops the guest's processes and writes its disks out. Answers its unused memory in bytes,
  // 0: not told.
  Task<std::uint64_t> quiesce(Milliseconds limit);
  // Forgets kept connections: the VM behind the address stands still.
  void drop_connections();

  Task<std::unique_ptr<GuestProcess>> start(ExecSpec spec);
  // Runs to the end. Output above kMaxExecOutputBytes kills the process: kResourceExhausted, reason
  // "output_limit"; so does output of which the sandbox's commands together have more than
  // kMaxCollectedBytes. On cancel the process is killed unless `*keep_on_cancel` is true by then.
  Task<ExecOutput> exec(ExecSpec spec, std::shared_ptr<bool> keep_on_cancel);

  // Any process of the API. connect() shows one from now on, or start and end of one that ended lately.
  Task<GuestList> processes();  // of process::ProcessInfo
  Task<std::unique_ptr<GuestProcess>> connect(process::ProcessSelector selector);
  Task<> signal(process::ProcessSelector selector, process::Signal signal);

  Task<GuestList> list_dir(std::string path, std::uint32_t depth);  // of filesystem::EntryInfo
  Task<filesystem::EntryInfo> make_dir(std::string path);
  Task<> remove(std::string path);

  // Terminals. attach() shows one from now on; kNotFound when it has ended.
  Task<std::unique_ptr<GuestProcess>> start_pty(PtySpec spec);
  Task<std::unique_ptr<GuestProcess>> attach_pty(std::string tag);
  Task<> pty_input(std::string tag, std::string bytes);
  Task<> pty_resize(std::string tag, std::uint32_t cols, std::uint32_t rows);
  Task<> pty_kill(std::string tag);

  Task<std::unique_ptr<GuestUpload>> upload(std::string path);
  // The file's bytes; kNotFound, kInvalidArgument (a folder), ...
  Task<std::unique_ptr<net::ClientResponse>> download(std::string path);

 private:
  friend class GuestProcess;
  net::RequestHead head(std::string method, std::string target) const;
  Task<net::Headers> simple(std::string method, std::string target, std::string body);
  Task<std::unique_ptr<GuestProcess>> open(std::string procedure, std::unique_ptr<connect::Message> request,
                                           connect::CallOptions options);

  std::shared_ptr<net::HttpClient> http_;
  net::Endpoint endpoint_;
  template <class Req>
  Task<GuestList> list(std::string procedure, Req request, int field, connect::ElementLimits limits);

  std::string token_;
  connect::Client connect_;
  std::shared_ptr<const StreamShare> streams_ = std::make_shared<const StreamShare>();
  std::unique_ptr<async::Semaphore> lists_;
  std::size_t collected_bytes_ = 0;
};

// Forgets connections to the VM that had this address, which is gone.
void forget_guest(net::HttpClient* http, std::string host_ip);

// The error of an HTTP answer of envd that is not 2xx.
Error guest_http_error(int status, std::string_view body);

}  // namespace wrenn::sandbox
