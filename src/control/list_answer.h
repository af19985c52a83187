#pragma once

#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "control/answer_budget.h"
#include "control/api_error.h"
#include "control/json_answer.h"

namespace wrenn::control {

// A host agent's answer that is one long list (a protobuf message whose field 1 repeats), as it came: entries
// are parsed one at a time while they are passed on. So a list that a guest made up costs its bytes and no
// more.
class ListAnswer {
 public:
  ListAnswer(AnswerBudget* budget, std::string team) : share_(budget, std::move(team)) {}

  // Reads and checks it. kResourceExhausted with reason "too_large", "too_many_entries" or "answers_held".
  Task<> read(net::BodyReader* body);
  // The bytes of the next entry; nullopt at the end.
  std::optional<std::string_view> next();

  // Adds the rest as elements of a JSON array.
  template <class Entry>
  Task<> send(JsonAnswer* answer, std::function<boost::json::object(const Entry&)> to_json) {
    bool first = true;
    while (const auto bytes = next()) {
      Entry entry;
      if (!entry.ParseFromArray(bytes->data(), static_cast<int>(bytes->size()))) {
        co_return fail(from_agent(Error(Code::kInternal, "an entry of a list cannot be parsed")));
      }
      if (!first) answer->add(",");
      first = false;
      answer->add(boost::json::serialize(to_json(entry)));
      if (answer->full()) CO_TRY(co_await answer->send());
    }
    co_return Result<>{};
  }

 private:
  Result<> make_room();
  Result<> check();

  AnswerBudget::Share share_;
  std::string bytes_;
  std::size_t read_ = 0;  // of bytes_
  std::size_t at_ = 0;
};

}  // namespace wrenn::control
