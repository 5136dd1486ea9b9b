// A C++ program without Python: capture → text → plan → run, bit for bit
// eager's loss, gradients and written buffers.
#include "capture/record.h"

#include <ATen/autocast_mode.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cstring>
#include <fstream>
#include <sstream>
#include <tuple>

#include "api/compiler/compiler.h"
#include "runtime/plan/plan.h"
#include "runtime/torch/session.h"
#include "tests/unit/capture/models.h"

namespace heddle::capture {
namespace {

using testing::Case;
using testing::Cases;

std::string Take(HeddleBuffer* buffer) {
  std::string text(buffer->data == nullptr ? "" : buffer->data, buffer->size);
  heddle_free(buffer);
  return text;
}

std::vector<uint8_t> Compile(const std::string& text) {
  HeddleBuffer plan{}, error{};
  int code = heddle_compile(text.data(), text.size(), nullptr, 0,
                            R"({"mode": "replay"})", &plan, &error);
  EXPECT_EQ(code, 0) << Take(&error);
  std::string bytes = Take(&plan);
  return {bytes.begin(), bytes.end()};
}

// Without passes, the compiler parses and prints.
std::string Reprinted(const std::string& text) {
  HeddleBuffer out{}, error{};
  int code = heddle_run_passes(text.data(), text.size(), "builtin.module()",
                               &out, &error);
  EXPECT_EQ(code, 0) << Take(&error);
  return Take(&out);
}

bool SameBits(const at::Tensor& a, const at::Tensor& b) {
  if (a.sizes() != b.sizes() || a.dtype() != b.dtype()) return false;
  at::Tensor x = a.contiguous(), y = b.contiguous();
  return std::memcmp(x.const_data_ptr(), y.const_data_ptr(), x.nbytes()) == 0;
}

RecordOptions OptionsFor(const Case& test) {
  RecordOptions options;
  options.module = test.module.get();
  options.batch = test.batch;
  return options;
}

std::vector<at::Tensor> TensorsOf(const Batch& batch) {
  std::vector<at::Tensor> tensors;
  for (const auto& [name, tensor] : batch) tensors.push_back(tensor);
  return tensors;
}

// Each case as it is, and in an autocast region that the capture, the run and
// eager all happen in: the program has its casts once, and eager does not get
// the capture's weights out of PyTorch's cache, although the module is the
// same.
class RecordCases : public ::testing::TestWithParam<std::tuple<int, bool>> {
 protected:
  RecordCases() {
    at::autocast::set_autocast_enabled(at::kCPU, std::get<1>(GetParam()));
  }
  ~RecordCases() override {
    at::autocast::set_autocast_enabled(at::kCPU, false);
    at::autocast::clear_cache();
  }
  Case test = Cases()[std::get<0>(GetParam())];
};

TEST_P(RecordCases, RunsToEagersBits) {
  absl::StatusOr<Program> program = Record(test.step, OptionsFor(test));
  ASSERT_TRUE(program.ok()) << program.status();
  EXPECT_EQ(Reprinted(program->text) + "\n", program->text);
  ASSERT_TRUE(program->constants.empty());
  EXPECT_EQ(program->text.find("bf16") != std::string::npos,
            std::get<1>(GetParam()));

  std::vector<uint8_t> bytes = Compile(program->text);
  auto plan = plan::ParsePlan(bytes.data(), bytes.size());
  ASSERT_TRUE(plan.ok()) << plan.status();
  auto session = torch_runtime::Session::Load(*std::move(plan), 1);
  ASSERT_TRUE(session.ok()) << session.status();
  auto load = [&] {
    for (const auto& item : test.module->named_parameters()) {
      absl::Status status =
          (*session)->SetState("parameter", item.key(), item.value().detach());
      ASSERT_TRUE(status.ok()) << status;
    }
    for (const plan::StateEntry& entry : (*session)->plan().state) {
      if (entry.kind != "buffer") continue;
      absl::Status status =
          (*session)->SetState("buffer", entry.names[0],
                               test.module->named_buffers()[entry.names[0]]);
      ASSERT_TRUE(status.ok()) << status;
    }
  };
  torch_runtime::TensorMap inputs(test.batch.begin(), test.batch.end());
  // The first run learns where operators allocate, the second keeps to the
  // plan.
  absl::StatusOr<torch_runtime::TensorMap> results;
  for (int run = 0; run < 2; ++run) {
    load();
    results = (*session)->Run("replay", inputs);
    ASSERT_TRUE(results.ok()) << results.status();
  }

  at::Tensor loss = test.step(TensorsOf(test.batch));
  loss.backward();
  EXPECT_TRUE(SameBits(results->at("loss"), loss.detach()))
      << results->at("loss") << loss;
  size_t gradients = 0;
  for (const auto& item : test.module->named_parameters()) {
    ASSERT_TRUE(item.value().grad().defined()) << item.key();
    auto ours = results->find("gradient:" + item.key());
    ASSERT_NE(ours, results->end()) << item.key();
    EXPECT_TRUE(SameBits(ours->second, item.value().grad())) << item.key();
    ++gradients;
  }
  EXPECT_GT(gradients, 0u);
  for (const auto& item : test.module->named_buffers()) {
    auto written = results->find("new_value:" + item.key());
    if (written != results->end()) {
      EXPECT_TRUE(SameBits(written->second, item.value())) << item.key();
    }
    bool running = item.key().find("running_") != std::string::npos ||
                   item.key().find("num_batches") != std::string::npos;
    EXPECT_EQ(running, written != results->end()) << item.key();
  }
}

TEST_P(RecordCases, LeavesTheModuleAlone) {
  std::vector<std::pair<at::Tensor, const void*>> before;
  for (const at::Tensor& p : test.module->parameters()) {
    p.mutable_grad() = at::ones_like(p);
    before.emplace_back(p.detach().clone(), p.const_data_ptr());
  }
  for (const at::Tensor& b : test.module->buffers())
    before.emplace_back(b.clone(), b.const_data_ptr());
  ASSERT_TRUE(Record(test.step, OptionsFor(test)).ok());
  size_t i = 0;
  for (const at::Tensor& p : test.module->parameters()) {
    EXPECT_TRUE(p.device().is_cpu() && p.requires_grad() &&
                p.const_data_ptr() == before[i].second &&
                SameBits(p.detach(), before[i].first));
    EXPECT_TRUE(SameBits(p.grad(), at::ones_like(p)));
    ++i;
  }
  for (const at::Tensor& b : test.module->buffers()) {
    EXPECT_TRUE(b.const_data_ptr() == before[i].second &&
                SameBits(b, before[i].first));
    ++i;
  }
}

INSTANTIATE_TEST_SUITE_P(Models, RecordCases,
                         ::testing::Combine(::testing::Range(0, 4),
                                            ::testing::Bool()),
                         [](const auto& info) {
                           return Cases()[std::get<0>(info.param)].name +
                                  (std::get<1>(info.param) ? "_autocast" : "");
                         });

TEST(Record, NoPythonInThisProcess) {
  Case test = Cases()[0];
  ASSERT_TRUE(Record(test.step, OptionsFor(test)).ok());
  std::stringstream maps;
  maps << std::ifstream("/proc/self/maps").rdbuf();
  EXPECT_NE(maps.str().find("libtorch_cpu"), std::string::npos);
  EXPECT_EQ(maps.str().find("libpython"), std::string::npos);
  EXPECT_EQ(maps.str().find("libtorch_python"), std::string::npos);
}

TEST(Record, ModulePathsComeFromScopesElseFromParameters) {
  Case test = Cases()[2];
  absl::StatusOr<Program> program = Record(test.step, OptionsFor(test));
  ASSERT_TRUE(program.ok()) << program.status();
  for (const char* path : {"loc(\"attention\")", "loc(\"mlp\")",
                           "loc(\"tokens\")", "loc(\"lm_head\")"})
    EXPECT_NE(program->text.find(path), std::string::npos) << path;
}

TEST(Record, PresentsParametersInThePrecision) {
  Case test = Cases()[0];
  RecordOptions options = OptionsFor(test);
  options.precision = "bf16";
  options.batch[0].second = options.batch[0].second.to(at::kBFloat16);
  absl::StatusOr<Program> program = Record(test.step, options);
  ASSERT_TRUE(program.ok()) << program.status();
  EXPECT_NE(program->text.find("tensor<16x12xbf16>"), std::string::npos);
}

TEST(Record, ForwardOnlyHasNoGradients) {
  Case test = Cases()[0];
  RecordOptions options = OptionsFor(test);
  options.backward = false;
  absl::StatusOr<Program> program = Record(test.step, options);
  ASSERT_TRUE(program.ok()) << program.status();
  EXPECT_EQ(program->text.find("#graph.gradient"), std::string::npos);
}

TEST(Record, RefusalsAreStatusesAndLeaveNothingBehind) {
  Case test = Cases()[0];
  RecordOptions options = OptionsFor(test);
  at::Tensor outside = at::randn({12});
  std::vector<std::pair<StepFunction, std::string>> refused;
  refused.emplace_back(
      [&](const std::vector<at::Tensor>& b) { return (b[0] * outside).sum(); },
      "existed before the step");
  refused.emplace_back(
      [&](const std::vector<at::Tensor>& b) {
        return b[0].sum().item<double>() > 0 ? b[0].sum() : b[0].mean();
      },
      "_local_scalar_dense");
  refused.emplace_back([&](const std::vector<at::Tensor>& b) { return b[0]; },
                       "scalar loss");
  refused.emplace_back(
      [&](const std::vector<at::Tensor>& b) { return b[0].sum(); },
      "does not depend on a parameter");
  refused.emplace_back(
      [&](const std::vector<at::Tensor>& b) {
        return (b[0] + at::rand({}).item<double>()).sum() *
               test.module->parameters()[0].sum();
      },
      "host generator");
  refused.emplace_back(
      [&](const std::vector<at::Tensor>& b) {
        at::Generator own = at::globalContext().defaultGenerator(at::kCPU);
        own = own.clone();
        return (b[0] + at::rand({}, own).item<double>()).sum() *
               test.module->parameters()[0].sum();
      },
      "aten::rand in module '<root>' draws from a generator of its own");
  refused.emplace_back(
      [](const std::vector<at::Tensor>&) -> at::Tensor {
        throw std::runtime_error("no such thing");
      },
      "no such thing");
  refused.emplace_back(
      [](const std::vector<at::Tensor>&) -> at::Tensor { throw 7; },
      "no std::exception");
  refused.emplace_back(
      [](const std::vector<at::Tensor>& b) {
        return b[0].data_ptr<float>()[0] > 0 ? b[0].sum() : b[0].mean();
      },
      "");
  for (auto& [step, message] : refused) {
    absl::StatusOr<Program> program = Record(step, options);
    ASSERT_FALSE(program.ok()) << message;
    EXPECT_NE(std::string(program.status().message()).find(message),
              std::string::npos)
        << program.status();
    absl::StatusOr<Program> next = Record(test.step, options);
    ASSERT_TRUE(next.ok()) << next.status();
  }
  RecordOptions unknown = options;
  unknown.target = "tpu";
  EXPECT_FALSE(Record(test.step, unknown).ok());
  unknown = options;
  unknown.precision = "int3";
  EXPECT_FALSE(Record(test.step, unknown).ok());
  unknown.module = nullptr;
  EXPECT_FALSE(Record(test.step, unknown).ok());
}

}  // namespace
}  // namespace heddle::capture
