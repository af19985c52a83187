#include "cli/doctor.h"

#include <fmt/format.h>

#include <algorithm>

#include "cli/doctor_checks.h"
#include "cli/limits.h"
#include "cli/up.h"

namespace wrenn::cli {
namespace {

const char* verdict_name(Verdict verdict) {
  switch (verdict) {
    case Verdict::kOk:
      return "ok";
    case Verdict::kWarn:
      return "warn";
    case Verdict::kFail:
      return "fail";
  }
  return "fail";
}

constexpr Check kService{"service", "the commands of `wrenn` talk to it"};
constexpr Check kKey{"API key", "the service answers only to keys it knows"};

Task<std::vector<Finding>> check_service(Context* context) {
  std::vector<Finding> findings;
  const std::string url = context->api->base_url();
  const auto health = co_await context->api->call("GET", "/health", std::nullopt, Milliseconds(3'000));
  if (!health) {
    findings.push_back(kService.warn(health.error().message(), "start it: wrenn up --detach"));
    co_return findings;
  }
  findings.push_back(kService.ok(url + " answers"));
  const auto list = co_await context->api->call("GET", "/v1/sandboxes", std::nullopt, Milliseconds(5'000));
  if (list) {
    findings.push_back(kKey.ok("accepted"));
  } else {
    findings.push_back(
        kKey.bad(list.error().message(),
                 "export WRENN_API_KEY, or put the key `wrenn up` printed into ~/.config/wrenn/credentials"));
  }
  co_return findings;
}

bool all_hold(const std::vector<Finding>& findings) {
  return std::none_of(findings.begin(), findings.end(),
                      [](const Finding& finding) { return finding.verdict == Verdict::kFail; });
}

Result<> print_as_json(const std::vector<Finding>& findings) {
  json::array checks;
  for (const auto& finding : findings) {
    json::object check{{"name", finding.name},
                       {"status", verdict_name(finding.verdict)},
                       {"detail", finding.detail},
                       {"why", finding.why}};
    if (!finding.fix.empty()) check["fix"] = finding.fix;
    checks.push_back(std::move(check));
  }
  return print_json({{"ok", all_hold(findings)}, {"checks", std::move(checks)}});
}

Result<> print_as_text(const std::vector<Finding>& findings) {
  std::string out;
  for (const auto& finding : findings) {
    out += fmt::format("{:<5} {:<13} {}\n", verdict_name(finding.verdict), finding.name, finding.detail);
    if (finding.verdict == Verdict::kOk) continue;
    out += fmt::format("{:19} why: {}\n{:19} fix: {}\n", "", finding.why, "", finding.fix);
  }
  return print(out + summary(findings) + "\n");
}

}  // namespace

Task<int> doctor_command(Context* context) {
  const Environment environment = process_environment();
  const std::string dir = context->args.dir.empty() ? wrenn_dir(environment) : context->args.dir;
  const Places places = places_of(dir, own_folder(), environment);
  auto progress = context->progress();
  std::vector<Finding> findings = CO_TRY(co_await progress.run<std::vector<Finding>>(
      "looking at this machine",
      async::offload(context->loop->pool(),
                     [places]() -> Result<std::vector<Finding>> { return check_host(places); })));
  for (auto& finding : CO_TRY(co_await check_service(context))) findings.push_back(std::move(finding));
  CO_TRY(context->args.json ? print_as_json(findings) : print_as_text(findings));
  co_return all_hold(findings) ? kExitOk : kExitFailure;
}

}  // namespace wrenn::cli
