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

Task<std::vector<Finding>> check_service(Context* context) {
  std::vector<Finding> findings;
  const std::string url = context->api->base_url();
  const auto health = co_await context->api->call("GET", "/health", std::nullopt, Milliseconds(3'000));
  if (!health) {
    findings.push_back({"service", Verdict::kWarn, "no answer from " + url + ": " + health.error().message(),
                        "start it: wrenn up --detach"});
    co_return findings;
  }
  findings.push_back({"service", Verdict::kOk, url + " answers", ""});
  const auto list = co_await context->api->call("GET", "/v1/sandboxes", std::nullopt, Milliseconds(5'000));
  if (list) {
    findings.push_back({"API key", Verdict::kOk, "accepted", ""});
  } else {
    findings.push_back(
        {"API key", Verdict::kFail, list.error().message(),
         "export WRENN_API_KEY, or put the key `wrenn up` printed into ~/.config/wrenn/credentials"});
  }
  co_return findings;
}

Result<> print_findings(const std::vector<Finding>& findings, bool as_json) {
  if (as_json) {
    json::array checks;
    for (const auto& finding : findings) {
      json::object check{
          {"name", finding.name}, {"status", verdict_name(finding.verdict)}, {"detail", finding.detail}};
      if (!finding.fix.empty()) check["fix"] = finding.fix;
      checks.push_back(std::move(check));
    }
    const bool ok = std::none_of(findings.begin(), findings.end(),
                                 [](const Finding& finding) { return finding.verdict == Verdict::kFail; });
    return print_json({{"ok", ok}, {"checks", std::move(checks)}});
  }
  std::string out;
  for (const auto& finding : findings) {
    out += fmt::format("{:<5} {:<16} {}\n", verdict_name(finding.verdict), finding.name, finding.detail);
    if (!finding.fix.empty()) out += fmt::format("      {:<16} fix: {}\n", "", finding.fix);
  }
  return print(out);
}

}  // namespace

Task<int> doctor_command(Context* context) {
  const std::string dir = context->args.dir.empty() ? wrenn_dir(process_environment()) : context->args.dir;
  auto progress = context->progress();
  std::vector<Finding> findings = CO_TRY(co_await progress.run<std::vector<Finding>>(
      "looking at this machine",
      async::offload(context->loop->pool(),
                     [dir]() -> Result<std::vector<Finding>> { return check_host(dir, own_folder()); })));
  for (auto& finding : CO_TRY(co_await check_service(context))) findings.push_back(std::move(finding));
  CO_TRY(print_findings(findings, context->args.json));
  const bool bad = std::any_of(findings.begin(), findings.end(),
                               [](const Finding& finding) { return finding.verdict == Verdict::kFail; });
  co_return bad ? kExitFailure : kExitOk;
}

}  // namespace wrenn::cli
