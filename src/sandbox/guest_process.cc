// Processes in the guest.
#include <fmt/format.h>

#include <optional>

#include "async/async.h"
#include "sandbox/guest_client.h"
#include "sandbox/limits.h"

namespace wrenn::sandbox {
namespace {

constexpr connect::AnswerLimit kAnswer{kMaxEnvdAnswerBytes};
constexpr connect::AnswerLimit kEvent{kMaxGuestEventBytes};

}  // namespace

Task<std::optional<process::ProcessEvent>> GuestProcess::next() {
  if (ended_) co_return std::optional<process::ProcessEvent>{};
  process::StartResponse response;
  Result<bool> received = pid_ == 0 ? co_await receive_first(&response) : co_await call_->receive(&response);
  // The token has admitted us; whom envd does not know is the user that the caller named.
  if (!received && received.error().code() == Code::kUnauthenticated) {
    co_return fail(Error(Code::kInvalidArgument, received.error().message()).with_field("user"));
  }
  if (!CO_TRY(std::move(received))) {
    co_return fail(Code::kUnavailable, "the guest ended the stream before the process ended");
  }
  if (response.event().has_start()) pid_ = response.event().start().pid();
  if (response.event().has_end()) ended_ = true;
  co_return std::optional<process::ProcessEvent>(std::move(*response.mutable_event()));
}

// What was asked to start may run although nobody has said so: whoever leaves meanwhile waits a little for
// its number, so that it can be killed.
Task<bool> GuestProcess::receive_first(process::StartResponse* out) {
  const auto executor = co_await asio::this_coro::executor;
  std::optional<Result<bool>> received;
  async::Condition done(executor);
  const auto receive = [](connect::ClientCall* call, process::StartResponse* into,
                          std::optional<Result<bool>>* answer, async::Condition* told) -> Task<> {
    *answer = co_await async::with_timeout(call->receive(into), kProcessStartLimit, "starting the process");
    told->notify_all();
    co_return Result<>{};
  };
  async::Nursery receiving(executor);
  receiving.spawn("start of a process", receive(call_.get(), out, &received, &done));
  while (!received && co_await done.wait()) continue;
  if (!received) (void)co_await async::shielded(done.wait_for(kStartGrace));
  co_await receiving.cancel_and_join();
  if (!received) co_return fail(async::canceled_error());
  co_return std::move(*received);
}

namespace {

Task<> kill_pid(GuestClient* guest, std::uint32_t pid) {
  process::ProcessSelector selector;
  selector.set_pid(pid);
  auto killed = co_await guest->signal(std::move(selector), process::SIGNAL_SIGKILL);
  if (!killed && killed.error().code() != Code::kNotFound) co_return killed;
  co_return Result<>{};
}

}  // namespace

Task<> GuestProcess::kill() {
  if (ended_ || pid_ == 0) co_return Result<>{};
  co_return co_await async::with_timeout(kill_pid(guest_, pid_), kKillProcessLimit, "killing the process");
}

Task<std::unique_ptr<GuestProcess>> GuestClient::open(std::string procedure,
                                                      std::unique_ptr<connect::Message> request,
                                                      connect::CallOptions options) {
  auto place = streams_;
  const long others = place.use_count() - 2;  // besides this one and the client's own
  if (others >= kMaxGuestStreams) {
    co_return fail(Error(Code::kResourceExhausted,
                         fmt::format("{} streams of this sandbox's processes are open", kMaxGuestStreams))
                       .with_reason("too_many_streams"));
  }
  auto call = CO_TRY(co_await connect_.stream("/process.Process/" + procedure, kEvent, std::move(options)));
  const auto ask = [](connect::ClientCall* to, connect::Message* message) -> Task<> {
    CO_TRY(co_await to->send(message));
    co_return co_await to->finish_sending();
  };
  // Not cancelled half-way, when nobody could tell whether it will start.
  CO_TRY(co_await async::shielded(
      async::with_timeout(ask(call.get(), request.get()), kGuestCallLimit, "starting the process")));
  co_return std::unique_ptr<GuestProcess>(new GuestProcess(this, std::move(place), std::move(call)));
}

Task<std::unique_ptr<GuestProcess>> GuestClient::start(ExecSpec spec) {
  auto request = std::make_unique<process::StartRequest>();
  process::ProcessConfig* config = request->mutable_process();
  config->set_cmd(std::move(spec.cmd));
  for (auto& arg : spec.args) config->add_args(std::move(arg));
  for (auto& [name, value] : spec.envs) (*config->mutable_envs())[name] = std::move(value);
  if (!spec.cwd.empty()) config->set_cwd(std::move(spec.cwd));
  if (!spec.tag.empty()) request->set_tag(std::move(spec.tag));
  request->set_stdin(false);
  connect::CallOptions options;
  options.timeout = spec.limit;
  co_return co_await open("Start", std::move(request), std::move(options));
}

namespace {

// Appends outputs; `total` counts the bytes of all commands that are being collected.
class Collector {
 public:
  explicit Collector(std::size_t* total) : total_(total) {}
  Collector(const Collector&) = delete;
  Collector& operator=(const Collector&) = delete;
  ~Collector() { *total_ -= own_; }

  Result<> add(const process::ProcessEvent& event) {
    const std::size_t more = event.data().stdout().size() + event.data().stderr().size();
    own_ += more;
    *total_ += more;
    if (own_ > kMaxExecOutputBytes) {
      return fail(too_long(fmt::format("the output is longer than {} bytes", kMaxExecOutputBytes)));
    }
    if (*total_ > kMaxCollectedBytes) {
      return fail(too_long(fmt::format(
          "the outputs of this sandbox's commands are longer than {} bytes together", kMaxCollectedBytes)));
    }
    output.stdout_bytes += event.data().stdout();
    output.stderr_bytes += event.data().stderr();
    return {};
  }

  ExecOutput output;

 private:
  static Error too_long(std::string message) {
    return Error(Code::kResourceExhausted, std::move(message)).with_reason("output_limit");
  }
  std::size_t* total_;
  std::size_t own_ = 0;
};

}  // namespace

Task<ExecOutput> GuestClient::exec(ExecSpec spec, std::shared_ptr<bool> keep_on_cancel) {
  const auto process = CO_TRY(co_await start(std::move(spec)));
  Collector collector(&collected_bytes_);
  while (true) {
    auto event = co_await process->next();
    if (!event) {
      if (!*keep_on_cancel) co_await async::shielded(process->kill());
      co_return fail(std::move(event).error());
    }
    if (!*event) co_return std::move(collector.output);
    const Result<> added = collector.add(**event);
    if (!added) {
      co_await async::shielded(process->kill());
      co_return fail(added.error());
    }
    if ((*event)->has_end()) collector.output.exit_code = (*event)->end().exit_code();
  }
}

Task<std::unique_ptr<GuestProcess>> GuestClient::connect(process::ProcessSelector selector) {
  // Its events are those of Start under the same number, so one reader serves both.
  auto request = std::make_unique<process::ConnectRequest>();
  *request->mutable_process() = std::move(selector);
  co_return co_await open("Connect", std::move(request), {});
}

Task<> GuestClient::signal(process::ProcessSelector selector, process::Signal signal) {
  process::SendSignalRequest request;
  *request.mutable_process() = std::move(selector);
  request.set_signal(signal);
  connect::CallOptions options;
  options.timeout = kGuestCallLimit;
  options.repeatable = signal == process::SIGNAL_SIGKILL;
  CO_TRY(co_await connect_.unary<process::SendSignalResponse>(
      "/process.Process/SendSignal", std::move(request), kAnswer, std::move(options)));
  co_return Result<>{};
}

}  // namespace wrenn::sandbox
